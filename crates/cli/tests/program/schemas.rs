//! `fermata schema`.

use std::path::Path;

use crate::support::run;

const PUBLISHED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../schemas");

fn files(folder: &Path) -> Vec<(String, String)> {
    let files = std::fs::read_dir(folder).expect("a folder").map(|file| file.expect("a file"));
    let read = |file: std::fs::DirEntry| {
        let text = std::fs::read_to_string(file.path()).expect("text");
        (file.file_name().into_string().expect("UTF-8"), text)
    };
    let mut files = files.map(read).collect::<Vec<_>>();
    files.sort();
    files
}

#[tokio::test]
async fn what_is_published_is_what_the_program_writes() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("schemas");

    let ended = run(&["schema", "--out", out.to_str().expect("text")]).await;

    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let (written, published) = (files(&out), files(Path::new(PUBLISHED)));
    let names =
        |files: &[(String, String)]| files.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&written), names(&published));
    for ((name, written), (_, published)) in written.iter().zip(&published) {
        assert_eq!(written, published, "`{name}` is behind; run `make schemas`");
    }
}
