//! Where the nats-server binary comes from, and whether it is new enough.

use std::{
    env, fmt,
    path::{Path, PathBuf},
    process::Command,
};

use super::{SERVER_VERSION_MIN, ServerError};

/// Where the project keeps the binary, below any folder of the checkout.
const TOOL_PATH: &str = "target/tools/nats/nats-server";

/// A released version of nats-server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServerVersion {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Patch number.
    pub patch: u32,
}

impl ServerVersion {
    /// Reads `2.15.1`, with anything before the first digit and after the third number ignored.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.get(text.find(|character: char| character.is_ascii_digit())?..)?;
        let mut numbers = text.trim().splitn(3, '.');
        let major = numbers.next()?.parse().ok()?;
        let minor = numbers.next()?.parse().ok()?;
        let rest = numbers.next()?;
        let end = rest.find(|character: char| !character.is_ascii_digit()).unwrap_or(rest.len());
        Some(Self { major, minor, patch: rest.get(..end)?.parse().ok()? })
    }
}

impl fmt::Display for ServerVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// Finds a nats-server that is new enough: `FERMATA_NATS_SERVER`, then PATH, then the project's tool folder.
///
/// A binary named by `FERMATA_NATS_SERVER` is taken or refused, never passed over. One on the PATH that
/// is too old is passed over when the tool folder has a newer one.
///
/// # Errors
/// When there is none, or only one that is too old.
pub fn find_server_binary() -> Result<(PathBuf, ServerVersion), ServerError> {
    if let Some(path) = env::var_os("FERMATA_NATS_SERVER").filter(|path| !path.is_empty()) {
        let path = PathBuf::from(path);
        let named = |source| ServerError::Named { path: path.clone(), source: Box::new(source) };
        return checked(&path).map_err(named);
    }
    let mut refused = None;
    for path in candidates() {
        match checked(&path) {
            Ok(found) => return Ok(found),
            Err(error) => {
                refused.get_or_insert(error);
            }
        }
    }
    Err(refused.unwrap_or_else(|| ServerError::NotFound {
        looked_in: format!("`FERMATA_NATS_SERVER`, PATH, `FERMATA_TOOLS_DIR` and `{TOOL_PATH}`"),
    }))
}

/// Asks a binary for its version.
///
/// # Errors
/// When it cannot be run or does not answer like a nats-server.
pub fn server_binary_version(path: &Path) -> Result<ServerVersion, ServerError> {
    let output = Command::new(path)
        .arg("--version")
        .output()
        .map_err(ServerError::io(format!("run `{} --version`", path.display())))?;
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    said.strip_prefix("nats-server")
        .and_then(ServerVersion::parse)
        .ok_or_else(|| ServerError::NoVersion { path: path.to_owned(), said: said.clone() })
}

fn checked(path: &Path) -> Result<(PathBuf, ServerVersion), ServerError> {
    let found = server_binary_version(path)?;
    if found < SERVER_VERSION_MIN {
        return Err(ServerError::TooOld { path: path.to_owned(), found });
    }
    Ok((path.to_owned(), found))
}

fn candidates() -> impl Iterator<Item = PathBuf> {
    let on_path: Vec<PathBuf> = env::var_os("PATH")
        .map(|path| env::split_paths(&path).map(|folder| folder.join("nats-server")).collect())
        .unwrap_or_default();
    let tools = env::var_os("FERMATA_TOOLS_DIR")
        .map(PathBuf::from)
        .into_iter()
        .flat_map(|folder| [folder.join("nats/nats-server"), folder.join("nats-server")]);
    let starts = [env::current_exe().ok(), env::current_dir().ok()];
    let ancestors: Vec<PathBuf> = starts
        .into_iter()
        .flatten()
        .flat_map(|start| {
            start.ancestors().map(|folder| folder.join(TOOL_PATH)).collect::<Vec<_>>()
        })
        .collect();
    on_path.into_iter().chain(tools).chain(ancestors).filter(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_from_what_the_binary_prints() {
        let version = ServerVersion::parse("nats-server: v2.15.1-beta.2").expect("a version");

        assert_eq!(version, ServerVersion { major: 2, minor: 15, patch: 1 });
    }

    #[test]
    fn versions_are_ordered_by_number_and_not_by_text() {
        let ninth = ServerVersion::parse("2.9.10").expect("a version");

        assert!(ninth < SERVER_VERSION_MIN);
    }

    #[test]
    fn something_that_is_no_server_is_refused() {
        let error = server_binary_version(Path::new("/bin/echo")).expect_err("echo is no server");

        assert!(matches!(error, ServerError::NoVersion { .. }), "{error}");
    }
}
