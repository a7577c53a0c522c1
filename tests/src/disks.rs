//! Disks that fail as told: one whose power is cut, one that is full.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::rights::{must_run, run, text};

/// Size of the file that a [`LoopDisk`] lies in; only what is written takes room.
const IMAGE_SIZE: &str = "1G";

/// Tells ext4 to drop everything that is not on the disk yet, its own log included, and to take
/// nothing more: `EXT4_IOC_SHUTDOWN` with `EXT4_GOING_FLAGS_NOLOGFLUSH`.
const CUT: &str = "
import fcntl, os, struct, sys
folder = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECTORY)
fcntl.ioctl(folder, 0x8004587D, struct.pack('I', 2))
";

/// An ext4 file system in a file, mounted.
#[derive(Debug)]
pub struct LoopDisk {
    folder: TempDir,
}

impl LoopDisk {
    /// Makes and mounts one.
    ///
    /// # Panics
    ///
    /// When that fails; see [`crate::rights::loop_mounts`].
    #[must_use]
    pub fn new() -> Self {
        let disk = Self { folder: tempfile::tempdir().expect("a temporary folder") };
        std::fs::create_dir(disk.path()).expect("a folder");
        let image = disk.image();
        must_run(&["truncate", "--size", IMAGE_SIZE, text(&image)]);
        must_run(&["mkfs.ext4", "-q", "-F", text(&image)]);
        disk.mount();
        disk
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("at")
    }

    fn image(&self) -> PathBuf {
        self.folder.path().join("image")
    }

    fn mount(&self) {
        must_run(&["mount", "-o", "loop", text(&self.image()), text(&self.path())]);
    }

    /// Has everything written that was not yet, as time would.
    ///
    /// # Panics
    ///
    /// When that fails.
    pub fn sync(&self) {
        must_run(&["sync", "--file-system", text(&self.path())]);
    }

    /// Cuts its power: what was not synced is gone. Nothing can be written until [`Self::replace`].
    ///
    /// # Panics
    ///
    /// When that fails.
    pub fn cut(&self) {
        must_run(&["python3", "-c", CUT, text(&self.path())]);
    }

    /// Puts it back as a machine does that starts again. Whoever used it must have ended.
    ///
    /// # Panics
    ///
    /// When that fails.
    pub fn replace(&self) {
        must_run(&["umount", text(&self.path())]);
        self.mount();
    }
}

impl Default for LoopDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        unmount(&self.path());
    }
}

/// How often a [`SmallDisk`] is filled anew to which others write meanwhile more than is to be left.
const FILLS_MAX: u32 = 20;

/// A small file system in memory, mounted.
#[derive(Debug)]
pub struct SmallDisk {
    folder: TempDir,
}

impl SmallDisk {
    /// Makes one that holds this much.
    ///
    /// # Panics
    ///
    /// When that fails; see [`crate::rights::memory_mounts`].
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        let disk = Self { folder: tempfile::tempdir().expect("a temporary folder") };
        let size = format!("size={bytes}");
        must_run(&["mount", "-t", "tmpfs", "-o", &size, "fermata-fault", text(disk.path())]);
        disk
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Fills it but for so much.
    ///
    /// # Panics
    ///
    /// When that fails.
    pub fn fill_but(&self, left_bytes: u64) {
        for fills_left in (0..FILLS_MAX).rev() {
            let size = self.free_bytes().saturating_sub(left_bytes).to_string();
            let filled = run(&["fallocate", "--length", &size, text(&self.ballast())]);
            let Err(error) = filled else { return };
            assert!(fills_left > 0, "{error}");
        }
    }

    fn free_bytes(&self) -> u64 {
        let free = must_run(&["df", "--block-size=1", "--output=avail", text(self.path())]);
        free.lines().last().and_then(|line| line.trim().parse().ok()).expect("df")
    }

    /// Makes room again.
    ///
    /// # Panics
    ///
    /// When nothing filled it.
    pub fn empty(&self) {
        std::fs::remove_file(self.ballast()).expect("what filled it");
    }

    fn ballast(&self) -> PathBuf {
        self.folder.path().join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        unmount(self.path());
    }
}

/// Whoever uses it may still be ending: then it goes when they have.
fn unmount(path: &Path) {
    let _ = run(&["umount", text(path)]).or_else(|_| run(&["umount", "--lazy", text(path)]));
}
