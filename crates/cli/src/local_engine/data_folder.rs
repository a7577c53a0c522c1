//! A data folder, used by one process at a time.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

use crate::error::CliError;

/// The file whose lock says that the folder is used. The system lets it go when
/// the process ends, however it ends.
const LOCK_FILE: &str = "lock";

/// A folder that no other process uses: two with the same worker's name would take
/// partitions from each other.
#[derive(Debug)]
pub(super) struct DataFolder(#[expect(dead_code, reason = "held, and let go with the value")] File);

impl DataFolder {
    /// Makes the folder where it is missing and holds it.
    ///
    /// # Errors
    ///
    /// When another process holds it, or it cannot be used.
    pub(super) fn hold(folder: &Path) -> Result<Self, CliError> {
        make_folder(folder)?;
        let shown = folder.display();
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(folder.join(LOCK_FILE))
            .map_err(CliError::io(format!("use the folder `{shown}`")))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(CliError::Usage(format!(
                    "an engine or worker runs already in the data folder `{shown}`: commands with the folder of an \
                     engine reach it; to start it otherwise end it first (Ctrl-C where it runs), and for another one \
                     beside it name another folder with `--data-dir`"
                )));
            }
            Err(TryLockError::Error(error)) => {
                return Err(CliError::io(format!("lock the folder `{shown}`"))(error));
            }
        }
        Ok(Self(lock))
    }
}

/// Makes a data folder where it is missing. One that has nothing in it yet is kept out of
/// version control, for the keys that will be; one that has may be somebody's, and stays as it is.
///
/// # Errors
///
/// When it cannot be made, read or written to.
pub fn make_folder(folder: &Path) -> Result<(), CliError> {
    let shown = folder.display();
    std::fs::create_dir_all(folder).map_err(CliError::io(format!("make the folder `{shown}`")))?;
    let mut entries =
        std::fs::read_dir(folder).map_err(CliError::io(format!("read the folder `{shown}`")))?;
    if entries.next().is_some() {
        return Ok(());
    }
    std::fs::write(folder.join(".gitignore"), "*\n")
        .map_err(CliError::io(format!("write into the folder `{shown}`")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_held_by_one_and_free_when_that_one_has_gone() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("data");

        let held = DataFolder::hold(&folder).unwrap();
        let refused = DataFolder::hold(&folder).unwrap_err();
        drop(held);
        let free = DataFolder::hold(&folder);

        assert!(refused.to_string().contains("`--data-dir`"), "{refused}");
        assert!(free.is_ok(), "{free:?}");
        assert_eq!(std::fs::read_to_string(folder.join(".gitignore")).unwrap(), "*\n");
    }

    #[test]
    fn a_folder_of_somebody_stays_under_version_control() {
        let folder = tempfile::tempdir().unwrap();

        std::fs::write(folder.path().join("main.rs"), "").unwrap();

        let held = DataFolder::hold(folder.path());

        assert!(held.is_ok(), "{held:?}");
        assert!(!folder.path().join(".gitignore").exists());
    }
}
