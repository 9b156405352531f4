//! What the walk finds: nothing is lost without a count, and names are bytes.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

use splitmask_pipeline::pack::{PackError, REFUSED_NAME};
use tempfile::TempDir;

use super::{ImageFormat, PackOptions, bytes, is_image, members, picture, put, run};

fn png(number: u32) -> Vec<u8> {
    bytes(&picture(16, 16, number), ImageFormat::Png)
}

fn put_bytes(root: &Path, relative: &[u8], data: &[u8]) {
    let path = root.join(OsStr::from_bytes(relative));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, data).unwrap();
}

/// Folders and files whose names are no UTF-8 (here Latin-1), or differ only in bytes that cannot be printed.
#[test]
fn classes_are_bytes_and_shown_so_that_they_can_be_told_apart() {
    let (input, out) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let classes: [&[u8]; 5] = [b"K\xe4se", b"K\xf6se", b"plain", b"two\nlines", br"K\xe4se"];
    for (n, class) in classes.iter().enumerate() {
        for i in 0..4u32 {
            put_bytes(
                input.path(),
                &[class, &b"/"[..], &[b'a' + i as u8, 0xe0 + i as u8], b".png"].concat(),
                &png(n as u32 * 8 + i),
            );
        }
    }
    let options = PackOptions::new(input.path(), out.path().join("o"));
    let report = run(&options).unwrap();
    let names = &report.train.classes;
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), 5, "{names:?}");
    assert_eq!(report.train.label_counts, [4; 5]);
    assert!(
        names.contains(&r"K\xe4se".to_owned()) && names.contains(&"plain".to_owned()),
        "{names:?}"
    );
    assert!(
        names.iter().all(|n| !n.contains(char::REPLACEMENT_CHARACTER) && !n.contains('\n')),
        "{names:?}"
    );
    let keys: BTreeSet<String> = members(&options.output.join("train"))
        .into_iter()
        .filter(|(name, _)| is_image(name))
        .map(|(name, _)| name)
        .collect();
    assert_eq!(keys.len(), 20);
}

#[test]
fn whatever_is_not_packed_is_counted_by_reason() {
    let (input, out) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let root = input.path();
    put(root, "c/good.png", &png(1));
    put(root, "loose.png", &png(2));
    put(root, ".thumbnails/x/small.png", &png(3));
    put(root, ".thumbnails/notes.txt", b"");
    put(root, "c/.DS_Store", b"");
    let _socket = UnixListener::bind(root.join("c/socket")).unwrap();
    let heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic and so on";
    put(root, "c/IMG_0001.HEIC", heic);
    put(root, "c/IMG_0002.jpg", heic);
    put(root, "c/notes.md", b"# notes");
    let options = PackOptions::new(root, out.path().join("o"));
    let report = run(&options).unwrap();
    assert_eq!((report.packed(), report.found), (2, 4));
    let passed = |reason: &str| report.passed_over[reason].files;
    assert_eq!((passed("hidden_folder"), passed("hidden"), passed("special")), (2, 1, 1));
    assert_eq!(report.other_files["md"], 1);
    assert_eq!(report.refused["unsupported"].files, 2, "{:?}", report.refused);
    let list = fs::read_to_string(options.output.join(REFUSED_NAME)).unwrap();
    for name in ["IMG_0001.HEIC", "IMG_0002.jpg"] {
        let line = list.lines().find(|l| l.contains(name)).unwrap();
        assert!(line.contains("HEIC (photos of phones), convert it"), "{line}");
    }
    assert_eq!(report.in_root, 1);
    assert!(
        report.notes().iter().any(|n| n.contains("beside the class folders")),
        "{:?}",
        report.notes()
    );
}

#[test]
fn a_folder_of_nothing_but_phone_photos_says_so() {
    let (input, out) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    put(input.path(), "a.heic", b"\0\0\0\x18ftypmif1\0\0\0\0");
    let error = run(&PackOptions::new(input.path(), out.path().join("o"))).unwrap_err();
    assert!(matches!(error, PackError::AllRefused { images: 1, .. }), "{error}");
    assert!(error.to_string().contains("a.heic: unsupported: HEIC"), "{error}");
    let hidden = TempDir::new().unwrap();
    put(hidden.path(), ".a/b.png", &png(1));
    let error = run(&PackOptions::new(hidden.path(), out.path().join("o"))).unwrap_err();
    assert!(error.to_string().contains("among 1 files (1 hidden_folder)"), "{error}");
}
