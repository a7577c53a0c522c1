//! Damaged files: never a panic, never a wrong answer, always an index made anew.

use std::fs;
use std::path::{Path, PathBuf};

use fermata_store::{FrameChanges, MemoryIndex, ReadModel, Rebuild, RunIndex};

use crate::support::{Word, assert_same, changes, limits, origin};

fn frames() -> Vec<FrameChanges> {
    let mut frames = Vec::new();
    for sequence in 1..=120_u64 {
        let number = u8::try_from(sequence % 12).unwrap();
        let partition = u16::try_from(sequence % 3).unwrap();
        let started = (number, Word::Started(number));
        let word = [Word::Succeeded, Word::Failed, Word::Closing, Word::Dispatched]
            [usize::from(number % 4)];
        let time = 1_000 + sequence;
        frames.push(changes(partition, sequence, time, &[started, (number, word)]));
    }
    frames
}

fn closed_model(folder: &Path) -> MemoryIndex {
    let mut memory = MemoryIndex::new(&origin(), 1_000);
    let mut model = ReadModel::open(folder, &origin(), limits(1_000)).unwrap().model;
    for frame in frames() {
        model.apply(&frame).unwrap();
        memory.apply(&frame).unwrap();
    }
    model.close().unwrap();
    memory
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found.sort();
    found
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Damage {
    Truncate(usize),
    Flip(usize, u8),
    Zero(usize, usize),
    Delete,
    Garbage,
}

impl Damage {
    fn do_to(self, file: &Path) {
        let mut bytes = fs::read(file).unwrap();
        match self {
            Self::Truncate(length) => bytes.truncate(length),
            Self::Flip(place, bits) => bytes[place] ^= bits,
            Self::Zero(from, to) => bytes[from..to].fill(0),
            Self::Delete => return fs::remove_file(file).unwrap(),
            Self::Garbage => bytes = b"garbage".repeat(100),
        }
        fs::write(file, bytes).unwrap();
    }
}

/// Damages for a file of `length` bytes, most of them where something is written.
fn damages(length: usize, used: usize) -> Vec<Damage> {
    let mut damages = vec![Damage::Delete, Damage::Garbage, Damage::Truncate(0)];
    for step in 0..40 {
        let place = used * step / 40;
        damages.push(Damage::Flip(place, 1 << (step % 8)));
        if step % 4 == 0 {
            damages.push(Damage::Truncate(place));
            damages.push(Damage::Zero(place, length.min(place + 64)));
        }
    }
    damages.retain(|damage| match damage {
        Damage::Flip(place, _) => *place < length,
        Damage::Truncate(_) | Damage::Zero(..) | Damage::Delete | Damage::Garbage => true,
    });
    damages
}

#[test]
fn whatever_is_damaged_no_answer_is_wrong_and_what_is_in_doubt_is_made_anew() {
    let sound = tempfile::tempdir().unwrap();
    let expected = closed_model(sound.path());
    let (mut kept, mut made_anew) = (0, 0);
    for file in files(sound.path()) {
        let name = file.strip_prefix(sound.path()).unwrap().to_owned();
        let bytes = fs::read(&file).unwrap();
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        for damage in damages(bytes.len(), used) {
            let folder = tempfile::tempdir().unwrap();
            copy(sound.path(), folder.path());
            damage.do_to(&folder.path().join(&name));

            let Ok(opened) = ReadModel::open(folder.path(), &origin(), limits(1_000)) else {
                panic!("{damage:?} of {} leaves nothing", name.display());
            };
            let mut model = opened.model;
            match opened.rebuild {
                Some(_) => made_anew += 1,
                // Bytes that nobody reads.
                None => kept += 1,
            }
            let mut memory = match opened.rebuild {
                Some(_) => MemoryIndex::new(&origin(), 1_000),
                None => expected.clone(),
            };
            assert_same(&mut model, &mut memory);
            for frame in frames() {
                assert_eq!(model.apply(&frame).unwrap(), memory.apply(&frame).unwrap());
            }
            assert_same(&mut model, &mut expected.clone());
        }
    }
    assert!(made_anew > kept, "only {made_anew} damages were noticed, {kept} were not");
}

#[test]
fn an_older_state_of_the_database_is_not_taken_for_the_closed_one() {
    let (folder, older) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    closed_model(folder.path());
    copy(folder.path(), older.path());
    let mut model = ReadModel::open(folder.path(), &origin(), limits(1_000)).unwrap().model;
    model.apply(&changes(0, 121, 2_000, &[(0, Word::Started(1))])).unwrap();
    model.close().unwrap();
    let closed = fs::read(folder.path().join("closed")).unwrap();
    fs::write(older.path().join("closed"), closed).unwrap();

    let opened = ReadModel::open(older.path(), &origin(), limits(1_000)).unwrap();

    assert!(matches!(opened.rebuild, Some(Rebuild::Store(_))), "{:?}", opened.rebuild);
}
