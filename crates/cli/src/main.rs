//! The program `fermata`; everything is in the library beside it.

/// Many threads allocate and free little things that others made; the allocator of the C library
/// takes a tenth more processor time for that (`bench/README.md`).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    fermata_cli::main()
}
