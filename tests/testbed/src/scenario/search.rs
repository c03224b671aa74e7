//! Searches files for traces of texts, whatever their format.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// All files below a directory that contain any of these byte strings.
pub fn files_containing(directory: &Path, needles: &[&[u8]]) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        let entries = fs::read_dir(&directory)
            .with_context(|| format!("cannot read {}", directory.display()))?;
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                open.push(entry.path());
            } else if contains_any(&fs::read(entry.path())?, needles) {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}

fn contains_any(bytes: &[u8], needles: &[&[u8]]) -> bool {
    needles.iter().any(|needle| {
        bytes
            .windows(needle.len().max(1))
            .any(|window| window == *needle)
    })
}

#[cfg(test)]
mod tests {
    use super::files_containing;

    #[test]
    fn a_text_is_found_in_the_depth_of_any_file() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("a/b");
        std::fs::create_dir_all(&deep).unwrap();
        std::fs::write(deep.join("x.db"), b"\0\0before needle after\xff").unwrap();
        std::fs::write(deep.join("y.db"), b"\0\0before needl after\xff").unwrap();
        let found = files_containing(directory.path(), &[b"other", b"needle"]).unwrap();
        assert_eq!(found, [deep.join("x.db")]);
    }
}
