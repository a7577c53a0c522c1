//! CPU time and memory of a process, from `/proc`.

use std::time::Duration;

use miette::{IntoDiagnostic as _, WrapErr as _, miette};

/// Ticks per second in `/proc/<pid>/stat`: the kernel's interface to programs has always had 100,
/// whatever it counts in itself.
const TICKS_PER_SECOND: u64 = 100;

/// CPU time that a living process has used, user and system, all threads.
pub fn cpu_time(pid: u32) -> miette::Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let text = read(&path)?;
    // The name in brackets may hold spaces and brackets, so count from its end: state is field 3.
    let rest = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let mut fields = rest.split_whitespace().skip(11);
    let mut next = || fields.next().and_then(|field| field.parse::<u64>().ok());
    let (Some(user), Some(system)) = (next(), next()) else {
        return Err(miette!("`{path}` does not tell the CPU time"));
    };
    Ok(Duration::from_millis((user + system) * (1_000 / TICKS_PER_SECOND)))
}

/// Resident memory of a living process, bytes.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// Most that it ever had.
    pub peak_bytes: u64,
    /// What it has now.
    pub now_bytes: u64,
}

/// Reads the resident memory of `pid`.
pub fn memory(pid: u32) -> miette::Result<Memory> {
    let path = format!("/proc/{pid}/status");
    let text = read(&path)?;
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name))
            .and_then(|rest| rest.split_whitespace().next())
            .and_then(|kibibytes| kibibytes.parse::<u64>().ok())
            .map(|kibibytes| kibibytes * 1024)
            .ok_or_else(|| miette!("`{path}` has no `{name}`"))
    };
    Ok(Memory { peak_bytes: field("VmHWM:")?, now_bytes: field("VmRSS:")? })
}

/// CPU time of this thread so far: with other work on the machine the clock
/// measures that too. Needs Linux.
pub fn thread_cpu() -> miette::Result<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").into_diagnostic()?;
    let nanoseconds = text.split(' ').next().and_then(|first| first.parse().ok());
    nanoseconds
        .map(Duration::from_nanos)
        .ok_or_else(|| miette!("`/proc/thread-self/schedstat` does not begin with a number"))
}

fn read(path: &str) -> miette::Result<String> {
    std::fs::read_to_string(path)
        .into_diagnostic()
        .wrap_err_with(|| format!("could not read `{path}`; has the process ended?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_computes_uses_cpu_time_and_memory() {
        let pid = std::process::id();
        let before = cpu_time(pid).unwrap();
        let mut number = 0_u64;
        while cpu_time(pid).unwrap() == before {
            number = std::hint::black_box(number.wrapping_mul(31).wrapping_add(1));
        }

        let memory = memory(pid).unwrap();

        assert!(memory.now_bytes > 0 && memory.peak_bytes >= memory.now_bytes / 2);
    }
}
