//! How an event becomes bytes.
//!
//! Records are those of TFRecord (TensorFlow, `tsl/lib/io/record_writer.h`): length as u64, masked CRC of the length, data, masked CRC of
//! the data, all little-endian. The data is a protobuf message `Event` (`tensorflow/core/util/event.proto`, `core/framework/summary.proto`);
//! of its fields a handful are needed, named below with their numbers.

use std::time::{SystemTime, UNIX_EPOCH};

use crc_fast::{CrcAlgorithm, checksum};

/// One event.
#[derive(Debug)]
pub(super) struct Event<'a> {
    /// When, by the wall clock.
    pub(super) time: SystemTime,
    /// Optimizer steps done.
    pub(super) step: u64,
    /// What happened.
    pub(super) what: What<'a>,
}

/// The kinds of event.
#[derive(Debug)]
pub(super) enum What<'a> {
    /// The first of a file: which format it has.
    Version,
    /// Events of this step and later ones in earlier files are void.
    Restart,
    /// Numbers by name.
    Scalars(&'a [(&'a str, f64)]),
    /// A picture: name, PNG file, size in pixels.
    Picture {
        name: &'a str,
        png: &'a [u8],
        width: u32,
        height: u32,
    },
}

impl Event<'_> {
    /// The whole record of this event.
    pub(super) fn record(&self) -> Vec<u8> {
        let data = self.message();
        let length = (data.len() as u64).to_le_bytes();
        let mut record = Vec::with_capacity(data.len() + 16);
        record.extend(length);
        record.extend(masked_crc(&length).to_le_bytes());
        record.extend(&data);
        record.extend(masked_crc(&data).to_le_bytes());
        record
    }

    /// The message `Event`.
    fn message(&self) -> Vec<u8> {
        let mut event = Vec::new();
        let time = self.time.duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64());
        fixed64(&mut event, 1, time); // wall_time
        number(&mut event, 2, self.step); // step
        match &self.what {
            What::Version => bytes(&mut event, 3, b"brain.Event:2"), // file_version
            What::Restart => {
                let mut session = Vec::new();
                number(&mut session, 1, 1); // status = START
                bytes(&mut event, 7, &session); // session_log
            }
            What::Scalars(values) => {
                let mut summary = Vec::new();
                for (name, x) in *values {
                    let mut value = Vec::new();
                    bytes(&mut value, 1, name.as_bytes()); // tag
                    fixed32(&mut value, 2, *x as f32); // simple_value
                    bytes(&mut summary, 1, &value); // value
                }
                bytes(&mut event, 5, &summary); // summary
            }
            What::Picture { name, png, width, height } => {
                let mut image = Vec::new();
                number(&mut image, 1, u64::from(*height)); // height
                number(&mut image, 2, u64::from(*width)); // width
                number(&mut image, 3, 3); // colorspace: RGB
                bytes(&mut image, 4, png); // encoded_image_string
                let mut value = Vec::new();
                bytes(&mut value, 1, name.as_bytes()); // tag
                bytes(&mut value, 4, &image); // image
                let mut summary = Vec::new();
                bytes(&mut summary, 1, &value); // value
                bytes(&mut event, 5, &summary); // summary
            }
        }
        event
    }
}

/// CRC-32C, turned and shifted by a constant, so that the CRC of data that holds CRCs is no weaker (as LevelDB has it).
pub(super) fn masked_crc(data: &[u8]) -> u32 {
    let crc = checksum(CrcAlgorithm::Crc32Iscsi, data) as u32;
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

// Protobuf's wire format: a varint of (field number × 8 + wire type), then the value.

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn number(out: &mut Vec<u8>, field: u64, value: u64) {
    varint(out, field << 3);
    varint(out, value);
}

fn fixed64(out: &mut Vec<u8>, field: u64, value: f64) {
    varint(out, field << 3 | 1);
    out.extend(value.to_le_bytes());
}

fn bytes(out: &mut Vec<u8>, field: u64, value: &[u8]) {
    varint(out, field << 3 | 2);
    varint(out, value.len() as u64);
    out.extend(value);
}

fn fixed32(out: &mut Vec<u8>, field: u64, value: f32) {
    varint(out, field << 3 | 5);
    out.extend(value.to_le_bytes());
}
