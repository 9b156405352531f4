//! The nouns of what is given: undecoded samples, pictures, views, batches. Plain data, no behaviour beyond lookups and sizes. What is asked for
//! stands in [`crate::request`].

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::cursor::Cursor;
use crate::name::Name;
use crate::request::{IMAGE, picture_bytes};

/// Identity of one sample in the stream; the seed of everything random about it.
///
/// Order and randomness are functions of (run seed, this id), never of thread timing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SampleId {
    /// Pass over the data, from 0.
    pub epoch: u32,
    /// Index of the shard in the *unshuffled* shard list.
    pub shard: u32,
    /// Index of the sample in its shard, from 0, counted over groups of members.
    pub member: u32,
}

/// One WebDataset sample as it stands in a tar shard: undecoded members under one key.
#[derive(Debug, Clone)]
pub struct RawSample {
    /// Where it came from.
    pub id: SampleId,
    /// Object path of the shard, for messages.
    pub shard: Arc<str>,
    /// Member path up to the first dot of its file name (WebDataset's rule).
    pub key: Name,
    /// Bytes of the image member.
    pub image: Bytes,
    /// Lower-case extension of the image member, without the dot; a hint only, the decoder looks at the bytes.
    pub extension: String,
    /// Class index from a `.cls` member, if there is one.
    pub label: Option<u32>,
    /// Bytes of its label map, where maps were asked for and it has one.
    pub map: Option<Bytes>,
    /// Bytes of the member with its objects, where objects were asked for and it has one.
    pub objects: Option<Bytes>,
}

/// RGB picture, 8 bits, row-major H×W×3 without padding.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Image {
    /// Columns, pixels.
    pub width: u32,
    /// Rows, pixels.
    pub height: u32,
    /// `height × width × 3` bytes.
    pub pixels: Vec<u8>,
}

/// The set that a mask puts a patch in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum PatchSet {
    /// In no set.
    #[default]
    Neither = 0,
    /// In set A: the patches of one branch, or the masked ones where there is a single mask.
    A = 1,
    /// In set B: the patches of the other branch.
    B = 2,
}

impl TryFrom<u8> for PatchSet {
    type Error = u8;

    /// The set of a number as files hold it: 0 neither, 1 A, 2 B.
    fn try_from(number: u8) -> Result<Self, u8> {
        [Self::Neither, Self::A, Self::B].get(usize::from(number)).copied().ok_or(number)
    }
}

/// An object in a view.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// Index of its class, from 0.
    pub class: u32,
    /// Left, upper, right and lower edge of its box in pixels of the view, within the view.
    pub corners: [f32; 4],
    /// Whether it stands for many, so that none of them is to be found or missed.
    pub crowd: bool,
    /// Its pixels, where they are known.
    pub mask: Option<ObjectMask>,
}

/// Pixels of an object, in the smallest rectangle of whole pixels around its box.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectMask {
    /// First column.
    pub left: u32,
    /// First row.
    pub top: u32,
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// 1 where a pixel belongs to the object, else 0; row-major.
    pub pixels: Vec<u8>,
}

impl Object {
    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.mask.as_ref().map_or(0, |mask| mask.pixels.len())
    }
}

/// What became of the objects of a picture in a view of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ObjectCounts {
    /// In the view.
    pub kept: u32,
    /// Outside of it, or of the picture.
    pub outside: u32,
    /// Left out: less than a pixel wide or high there.
    pub small: u32,
    /// Left out: less than a tenth of its box, or no pixel of its mask, is there.
    pub hidden: u32,
}

/// One sample ready for a batch. Buffers are recycled.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sample {
    /// Where it came from.
    pub id: Option<SampleId>,
    /// One buffer per view, in the order of the request: u8, planar 3×S×S, not normalised.
    pub views: Vec<Vec<u8>>,
    /// The target, as a view; empty if the request asks for none.
    pub target: Vec<u8>,
    /// Visual word of each patch, row-major; empty if the request asks for none.
    pub words: Vec<u32>,
    /// Set of each patch, row-major; empty if the request asks for none.
    pub sets: Vec<PatchSet>,
    /// A where a patch is hidden, view after view of those that the request asks for, row-major; empty if it asks for none.
    pub hidden: Vec<PatchSet>,
    /// Class of each pixel of the view whose map the request asks for, row-major, [`UNLABELLED`] where nothing is said; empty if it asks for none.
    pub map: Vec<i16>,
    /// Objects in the view that the request asks for; empty if it asks for none.
    pub objects: Vec<Object>,
    /// Class index, −1 if unknown.
    pub label: i64,
}

/// The class of a pixel of a label map about which nothing is said.
pub const UNLABELLED: i16 = -1;

/// How long the stages of one sample took, and what was noticed on the way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StageTimes {
    /// Bytes to pixels.
    pub decode: Duration,
    /// Crop, resize, colour of all views.
    pub augment: Duration,
    /// Visual words and mask.
    pub tokenize: Duration,
    /// The file ended early and was kept.
    pub truncated: bool,
    /// What became of its objects, where they were asked for.
    pub objects: ObjectCounts,
}

/// The name of a batch's target among its pictures.
pub const TARGET: &str = "target";

/// The pictures of one view of all samples of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// As the request names it; several views may share a name, and then have one size.
    pub name: Cow<'static, str>,
    /// Side S, pixels.
    pub size: u32,
    /// u8, B×3×S×S.
    pub pixels: Vec<u8>,
}

impl View {
    /// Bytes of one picture.
    #[must_use]
    pub fn picture_bytes(&self) -> usize {
        picture_bytes(self.size)
    }

    /// The picture of one sample.
    ///
    /// # Panics
    /// For a sample that the batch does not have.
    #[must_use]
    pub fn picture(&self, sample: usize) -> &[u8] {
        &self.pixels[sample * self.picture_bytes()..][..self.picture_bytes()]
    }
}

/// B samples as flat buffers and the cursor behind them. No tensor type.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// Samples B.
    pub len: usize,
    /// The views, in the order of the request.
    pub views: Vec<View>,
    /// The target that the request asks for; its name is [`TARGET`].
    pub target: Option<View>,
    /// Visual words B×n, or empty.
    pub words: Vec<u32>,
    /// Sets B×n, or empty.
    pub sets: Vec<PatchSet>,
    /// Hidden patches B×views×n, or empty.
    pub hidden: Vec<PatchSet>,
    /// Classes of the pixels of the view whose map the request asks for: B×S×S, [`UNLABELLED`] where nothing is said; or empty.
    pub maps: Vec<i16>,
    /// Objects in the view whose objects the request asks for, those of one sample behind those of the other; or empty.
    pub objects: Vec<Object>,
    /// Where the objects of each sample begin in `objects`, and behind the last one where they end: B + 1 numbers; or empty if none are asked for.
    pub object_offsets: Vec<u32>,
    /// Class index per sample, −1 if unknown.
    pub labels: Vec<i64>,
    /// Identity of each sample.
    pub ids: Vec<SampleId>,
    /// Where the stream goes on after this batch.
    pub cursor: Cursor,
}

impl Batch {
    /// Images alone, under the name [`IMAGE`]: B×size×size×3 bytes, B at least 1.
    #[must_use]
    pub fn of_images(size: u32, pixels: Vec<u8>) -> Self {
        let len = pixels.len() / (3 * (size as usize).pow(2));
        Self {
            len,
            views: vec![View {
                name: IMAGE.into(),
                size,
                pixels,
            }],
            target: None,
            words: vec![],
            sets: vec![],
            hidden: vec![],
            maps: vec![],
            objects: vec![],
            object_offsets: vec![],
            labels: vec![-1; len],
            ids: vec![],
            cursor: Cursor::default(),
        }
    }

    /// The first view of that name.
    #[must_use]
    pub fn view(&self, name: &str) -> Option<&View> {
        self.views.iter().find(|view| view.name == name)
    }

    /// The objects of one sample; none where none were asked for.
    ///
    /// # Panics
    /// For a sample that the batch does not have.
    #[must_use]
    pub fn objects_of(&self, sample: usize) -> &[Object] {
        match self.object_offsets.as_slice() {
            [] => &[],
            offsets => &self.objects[offsets[sample] as usize..offsets[sample + 1] as usize],
        }
    }

    /// Bytes held, as the queue's byte bound counts them.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let pixels: usize = self.views.iter().chain(&self.target).map(|view| view.pixels.len()).sum();
        let objects = self.objects.iter().map(Object::bytes).sum::<usize>() + self.object_offsets.len() * 4;
        pixels + objects + self.words.len() * 4 + self.sets.len() + self.hidden.len() + self.maps.len() * 2 + self.labels.len() * 8
    }
}
