//! How the program ends, as the shell sees it.

/// How the program ends. These codes are promised to scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitCode {
    /// 0: done, and nothing to object to.
    Success,
    /// 1: done, and there are findings: a check found problems, an audit is not sound, the
    /// watched run did not succeed, or something was refused.
    Findings,
    /// 2: the command line or a file cannot be used.
    Usage,
    /// 3: no broker, or none that stays; no engine on it, or one whose streams are gone; no answer
    /// in time.
    Unreachable,
    /// 4: what was asked for is not there.
    NotFound,
    /// 70: a fault of the program or of what it reads.
    Internal,
    /// 130: ended by a signal before what was under way had ended: an engine by a second one, an upload
    /// by the first.
    Interrupted,
}

impl ExitCode {
    /// The number that the shell sees.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Findings => 1,
            Self::Usage => 2,
            Self::Unreachable => 3,
            Self::NotFound => 4,
            Self::Internal => 70,
            Self::Interrupted => 130,
        }
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code.number())
    }
}

/// The exit codes as `--help` shows them.
pub const EXIT_CODES_HELP: &str = "\
Exit codes:
  0   done
  1   done, with findings: problems in a file, an unsound audit, a run that did not succeed, a refusal
  2   the command line or a file cannot be used
  3   no broker (or none that stays), no engine on it, a stream of the engine is gone, no answer in time, or the store refuses
  4   what was asked for is not there
  70  a fault inside, or an engine that could not start or go on
  130 ended by a signal before what was under way had ended";
