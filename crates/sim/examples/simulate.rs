//! Repeats one seed: `simulate --seed N [--verbose] [--short] [--crash OUTPUT]…`.

use std::process::ExitCode;

use fermata_sim::Scenario;

fn main() -> ExitCode {
    let mut seed = 0;
    let mut scenario = Scenario::chaos();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || arguments.next().and_then(|text| text.parse::<u64>().ok());
        match argument.as_str() {
            "--seed" => match number() {
                Some(number) => seed = number,
                None => return usage(),
            },
            "--crash" => match number() {
                Some(output) => scenario.crashes.push(output),
                None => return usage(),
            },
            "--short" => scenario = Scenario::short(),
            "--verbose" => scenario.verbose = true,
            _ => return usage(),
        }
    }
    match fermata_sim::run(seed, &scenario) {
        Ok(trace) => {
            println!("{trace:#?}");
            ExitCode::SUCCESS
        }
        Err(violation) => {
            eprintln!("{violation}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    eprintln!("usage: simulate --seed N [--short] [--verbose] [--crash OUTPUT]…");
    ExitCode::from(2)
}
