//! The program `fermata`; everything is in the library beside it.

fn main() -> std::process::ExitCode {
    fermata_cli::main()
}
