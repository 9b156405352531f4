//! A parser that is stricter than TensorBoard's: a file is whole records and nothing else; both CRCs of each hold; the first event is the version, at step 0; a
//! restart is nowhere but second; every event has a wall time; no field is there but those that `encoding` names, each of its wire type.

use std::fs;
use std::path::Path;

use super::super::encoding;

/// An event.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Read {
    Version(String),
    Restart {
        void_from: u64,
    },
    Scalar {
        step: u64,
        name: String,
        value: f32,
    },
    Picture {
        step: u64,
        name: String,
        width: u64,
        height: u64,
        png: Vec<u8>,
    },
}

/// A field of a message, by wire type.
enum Field<'a> {
    Number(u64),
    Fixed64(f64),
    Bytes(&'a [u8]),
    Fixed32(f32),
}

impl<'a> Field<'a> {
    fn number(self) -> u64 {
        match self {
            Field::Number(n) => n,
            _ => panic!("not a number"),
        }
    }

    fn bytes(self) -> &'a [u8] {
        match self {
            Field::Bytes(b) => b,
            _ => panic!("not bytes"),
        }
    }

    fn text(self) -> String {
        String::from_utf8(self.bytes().to_vec()).unwrap()
    }
}

fn varint(data: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = data.split_first().expect("a number is cut off");
        *data = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return value;
        }
    }
    panic!("a number of more than 64 bits");
}

fn take<'a>(data: &mut &'a [u8], n: usize) -> &'a [u8] {
    let (head, rest) = data.split_at_checked(n).expect("cut off");
    *data = rest;
    head
}

fn fields(mut data: &[u8]) -> Vec<(u64, Field<'_>)> {
    let mut found = Vec::new();
    while !data.is_empty() {
        let key = varint(&mut data);
        let field = match key & 7 {
            0 => Field::Number(varint(&mut data)),
            1 => Field::Fixed64(f64::from_le_bytes(take(&mut data, 8).try_into().unwrap())),
            2 => {
                let n = varint(&mut data) as usize;
                Field::Bytes(take(&mut data, n))
            }
            5 => Field::Fixed32(f32::from_le_bytes(take(&mut data, 4).try_into().unwrap())),
            other => panic!("wire type {other}"),
        };
        found.push((key >> 3, field));
    }
    found
}

fn image(data: &[u8], step: u64, name: String) -> Read {
    let (mut width, mut height, mut png) = (0, 0, Vec::new());
    for (field, value) in fields(data) {
        match field {
            1 => height = value.number(),
            2 => width = value.number(),
            3 => assert_eq!(value.number(), 3, "colorspace"),
            4 => png = value.bytes().to_vec(),
            other => panic!("field {other} of an image"),
        }
    }
    Read::Picture {
        step,
        name,
        width,
        height,
        png,
    }
}

fn event(data: &[u8]) -> Vec<Read> {
    let (mut step, mut time, mut found) = (0, 0.0, Vec::new());
    for (field, value) in fields(data) {
        match (field, value) {
            (1, Field::Fixed64(t)) => time = t,
            (2, Field::Number(n)) => step = n,
            (3, value) => found.push(Read::Version(value.text())),
            (7, value) => {
                let session = fields(value.bytes());
                assert!(matches!(session[..], [(1, Field::Number(1))]), "a session that does not start");
                found.push(Read::Restart { void_from: step });
            }
            (5, value) => {
                for (field, value) in fields(value.bytes()) {
                    assert_eq!(field, 1, "field of a summary");
                    let mut name = None;
                    for (field, value) in fields(value.bytes()) {
                        match (field, value) {
                            (1, value) => name = Some(value.text()),
                            (2, Field::Fixed32(value)) => found.push(Read::Scalar {
                                step,
                                name: name.clone().unwrap(),
                                value,
                            }),
                            (4, value) => found.push(image(value.bytes(), step, name.clone().unwrap())),
                            (other, _) => panic!("field {other} of a value"),
                        }
                    }
                }
            }
            (other, _) => panic!("field {other} of an event"),
        }
    }
    assert!(time > 1.7e9, "an event of {time} s after 1970");
    found
}

/// All events of a file.
pub(super) fn file(path: &Path) -> Vec<Read> {
    let text = fs::read(path).unwrap();
    let mut data = &text[..];
    let mut found = Vec::new();
    while !data.is_empty() {
        let length = take(&mut data, 8);
        let crc = |data: &mut &[u8]| u32::from_le_bytes(take(data, 4).try_into().unwrap());
        assert_eq!(
            crc(&mut data),
            encoding::masked_crc(length),
            "CRC of a length in {}",
            path.display()
        );
        let message = take(&mut data, u64::from_le_bytes(length.try_into().unwrap()) as usize);
        assert_eq!(
            crc(&mut data),
            encoding::masked_crc(message),
            "CRC of an event in {}",
            path.display()
        );
        found.extend(event(message));
    }
    assert_eq!(found[0], Read::Version("brain.Event:2".into()), "first event of {}", path.display());
    assert!(!found.iter().skip(2).any(|e| matches!(e, Read::Version(_) | Read::Restart { .. })));
    found
}
