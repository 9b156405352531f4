//! Decides for each image whether it is for training or for validation.
//!
//! A share is taken by hash of the path, so that an image stays in its set when others are added. The share has a floor: training is never
//! empty, and a class whose images would all be validation keeps one for training, if one can be read.

use super::found::Found;

/// Marks the validation images: those whose hash lies within `share`, except the last training image of each class and of the whole.
/// `classes` is their number.
pub(super) fn by_share(images: &mut [Found], share: f64, classes: usize) {
    let threshold = share * 2f64.powi(64);
    for image in images.iter_mut() {
        image.val = (image.split as f64) < threshold;
    }
    // The image that a smaller share would have left in training first.
    let mut last: Vec<Option<usize>> = vec![None; classes];
    let mut trains = vec![false; classes];
    for (i, image) in images.iter().enumerate() {
        let Some(class) = image.class.map(|c| c as usize) else { continue };
        trains[class] |= !image.val;
        if last[class].is_none_or(|l| images[l].split < image.split) {
            last[class] = Some(i);
        }
    }
    for (class, last) in last.into_iter().enumerate() {
        if let (Some(last), false) = (last, trains[class]) {
            images[last].val = false;
        }
    }
    if images.iter().all(|i| i.val)
        && let Some(last) = images.iter_mut().max_by_key(|i| i.split)
    {
        last.val = false;
    }
}

/// Holds the floor while images are packed, for some of those meant for training turn out to be unreadable or duplicates.
#[derive(Debug, Default)]
pub(super) struct Floor {
    /// By class: training images that were packed or may still be.
    hopes: Vec<u64>,
    /// The same of all images.
    all: u64,
    /// Validation images that went to training for the last of their class that could not be used.
    pub(super) moved: u64,
}

impl Floor {
    /// Of images that [`by_share`] has divided.
    pub(super) fn of(images: &[Found], classes: usize) -> Self {
        let mut floor = Self {
            hopes: vec![0; classes],
            ..Self::default()
        };
        for image in images.iter().filter(|i| !i.val) {
            floor.count(image, 1);
        }
        floor
    }

    fn count(&mut self, image: &Found, change: i64) {
        self.all = self.all.saturating_add_signed(change);
        if let Some(class) = image.class {
            let hopes = &mut self.hopes[class as usize];
            *hopes = hopes.saturating_add_signed(change);
        }
    }

    /// An image that cannot be packed.
    pub(super) fn lost(&mut self, image: &Found) {
        if !image.val {
            self.count(image, -1);
        }
    }

    /// Whether an image that is about to be packed goes to validation.
    pub(super) fn is_val(&mut self, image: &Found) -> bool {
        let needed = self.all == 0 || image.class.is_some_and(|c| self.hopes[c as usize] == 0);
        if image.val && needed {
            self.count(image, 1);
            self.moved += 1;
        }
        image.val && !needed
    }
}
