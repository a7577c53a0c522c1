//! The server's process: a keeper thread starts it, waits for it and outlives it.
//!
//! The kernel's parent-death signal fires when the *thread* that started the child ends, so the
//! child is started from a thread of its own that lives exactly as long as the child does.

use std::{
    collections::VecDeque,
    ffi::OsString,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::watch;

use crate::server::ServerError;

/// How firmly a process is asked to end.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Strength {
    /// A clean shutdown.
    Ask,
    /// No chance to clean up.
    Kill,
}

#[derive(Debug)]
pub(crate) struct ServerProcess {
    pid: u32,
    running: watch::Receiver<bool>,
}

impl ServerProcess {
    /// Starts `binary` by `launcher` with `config_path`, its output going to the end of `log_path`.
    pub(crate) fn spawn(
        binary: &Path,
        launcher: &[String],
        config_path: &Path,
        log_path: &Path,
    ) -> Result<Self, ServerError> {
        let io_error = |action: &'static str| {
            move |source| ServerError::Io { action: action.to_owned(), source }
        };
        let log = File::options()
            .create(true)
            .append(true)
            .open(log_path)
            .map_err(io_error("open the server's log"))?;
        let errors = log.try_clone().map_err(io_error("open the server's log"))?;
        let mut command = command(binary, launcher);
        command.arg("-c").arg(config_path).stdin(Stdio::null()).stdout(log).stderr(errors);

        let (running_sender, running) = watch::channel(true);
        let (pid_sender, pid_receiver) = mpsc::sync_channel(1);
        thread::Builder::new()
            .name("nats-server-keeper".to_owned())
            .spawn(move || keep(&mut command, &pid_sender, &running_sender))
            .map_err(io_error("start the thread that keeps nats-server"))?;
        let pid = pid_receiver
            .recv()
            .unwrap_or_else(|_| Err(io::Error::other("the keeper thread ended")))
            .map_err(io_error("start nats-server"))?;
        Ok(Self { pid, running })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    pub(crate) fn is_running(&self) -> bool {
        *self.running.borrow()
    }

    pub(crate) async fn ended(&self) {
        // An error means that the keeper is gone, and with it the child.
        let _ = self.running.clone().wait_for(|running| !running).await;
    }

    /// Sends a signal unless the process has ended: its number may belong to another process by then.
    pub(crate) fn signal(&self, strength: Strength) -> Result<(), ServerError> {
        if self.is_running() { signal(self.pid, strength) } else { Ok(()) }
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let _ = self.signal(Strength::Kill);
    }
}

fn keep(
    command: &mut Command,
    pid: &mpsc::SyncSender<io::Result<u32>>,
    running: &watch::Sender<bool>,
) {
    let spawned: io::Result<Child> = command.spawn();
    match spawned {
        Ok(mut child) => {
            let _ = pid.send(Ok(child.id()));
            let _ = child.wait();
        }
        Err(error) => {
            let _ = pid.send(Err(error));
        }
    }
    let _ = running.send(false);
}

/// `setpriv` sets the parent-death signal and becomes the server, so the process id stays the same;
/// so does what `launcher` names.
fn command(binary: &Path, launcher: &[String]) -> Command {
    let binary = binary.as_os_str().to_owned();
    let mut words = launcher.iter().map(OsString::from).chain([binary]).collect::<VecDeque<_>>();
    if let Some(setpriv) = find_setpriv() {
        for word in [OsString::from("KILL"), OsString::from("--pdeathsig"), setpriv.into()] {
            words.push_front(word);
        }
    }
    let mut command = Command::new(words.pop_front().unwrap_or_default());
    command.args(words);
    // Ctrl-C in a terminal goes to all of a group: the server ends last, when it is asked to.
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    command
}

fn find_setpriv() -> Option<PathBuf> {
    if !cfg!(target_os = "linux") {
        return None;
    }
    ["/usr/bin/setpriv", "/bin/setpriv"].into_iter().map(PathBuf::from).find(|path| path.is_file())
}

/// Sends a signal to a process; one that is gone already is no error.
pub(crate) fn signal(pid: u32, strength: Strength) -> Result<(), ServerError> {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(()) };
    let signal = match strength {
        Strength::Ask => Signal::TERM,
        Strength::Kill => Signal::KILL,
    };
    match kill_process(pid, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(ServerError::Io {
            action: format!("signal nats-server, process {}", pid.as_raw_nonzero()),
            source: error.into(),
        }),
    }
}

/// Whether process `pid` is a server whose configuration lies in `data_dir`.
///
/// Told from the command line that Linux shows below `/proc`; where that is absent the answer is no,
/// and a left-over server shows as a port or store that is in use.
pub(crate) fn is_our_server(pid: u32, data_dir: &Path) -> bool {
    let Ok(command_line) = fs::read(format!("/proc/{pid}/cmdline")) else { return false };
    let config = data_dir.join("nats-server.conf");
    let config = config.as_os_str().as_encoded_bytes();
    command_line.split(|byte| *byte == 0).any(|argument| argument == config)
}
