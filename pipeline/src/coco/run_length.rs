//! Masks as lengths of runs, column by column, beginning with a run of background: COCO's form.

/// A mask of `height` × `width` pixels: how many pixels of background, object, background … follow each other, going down the columns from the left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunLength {
    height: u32,
    width: u32,
    runs: Vec<u32>,
}

/// Runs that are no mask of this size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RunLengthError {
    /// They do not add up.
    #[error("runs of {found} pixels in all, where {height} × {width} = {expected} are needed")]
    Length {
        /// Sum of the runs.
        found: u64,
        /// Pixels of the picture.
        expected: u64,
        /// Of the picture.
        height: u32,
        /// Of the picture.
        width: u32,
    },
    /// A text that does not encode numbers of runs.
    #[error("byte {0} of the compressed text is none that encodes runs")]
    Text(usize),
}

impl RunLength {
    /// From runs as COCO's uncompressed `counts` lists them.
    ///
    /// # Errors
    /// They are more or fewer pixels than the picture has.
    pub fn of_runs(height: u32, width: u32, runs: Vec<u32>) -> Result<Self, RunLengthError> {
        let found = runs.iter().map(|&run| u64::from(run)).sum();
        let expected = u64::from(height) * u64::from(width);
        if found == expected {
            Ok(Self { height, width, runs })
        } else {
            Err(RunLengthError::Length {
                found,
                expected,
                height,
                width,
            })
        }
    }

    /// From COCO's compressed `counts`: five bits of a number in each byte, lowest first, a sixth that says whether more follow, and 48 added; from the
    /// fourth number on, the difference to the last but one.
    ///
    /// # Errors
    /// The text encodes no runs, or those of another size.
    pub fn of_text(height: u32, width: u32, text: &str) -> Result<Self, RunLengthError> {
        let bytes = text.as_bytes();
        let mut runs: Vec<u32> = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let (mut value, mut shift, began) = (0i64, 0u32, at);
            loop {
                let digit = match bytes.get(at) {
                    Some(&byte @ 48..=111) if shift < 60 => i64::from(byte - 48),
                    _ => return Err(RunLengthError::Text(at)),
                };
                at += 1;
                value |= (digit & 31) << shift;
                shift += 5;
                if digit & 32 == 0 {
                    if digit & 16 != 0 {
                        value |= -1 << shift;
                    }
                    break;
                }
            }
            if let Some(before) = runs.len().checked_sub(2).filter(|_| runs.len() > 2) {
                value += i64::from(runs[before]);
            }
            runs.push(u32::try_from(value).map_err(|_| RunLengthError::Text(began))?);
        }
        Self::of_runs(height, width, runs)
    }

    /// As COCO's compressed `counts`, which [`RunLength::of_text`] reads.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (n, &run) in self.runs.iter().enumerate() {
            let mut value = i64::from(run);
            if n > 2 {
                value -= i64::from(self.runs[n - 2]);
            }
            loop {
                let digit = (value & 31) as u8;
                value >>= 5;
                // The sixth bit says that more follows; the fifth one of the last digit is the sign.
                let done = if digit & 16 == 0 { value == 0 } else { value == -1 };
                text.push(char::from(48 + if done { digit } else { digit | 32 }));
                if done {
                    break;
                }
            }
        }
        text
    }

    /// From pixels row by row, 0 = background.
    ///
    /// # Panics
    /// `pixels` are not `height` × `width`.
    #[must_use]
    pub fn of_pixels(height: u32, width: u32, pixels: &[u8]) -> Self {
        let (h, w) = (height as usize, width as usize);
        assert_eq!(pixels.len(), h * w, "pixels of a mask of {h} × {w}");
        let mut mask = Self::of_starts(height, width);
        let mut set = false;
        let mut run = 0;
        for x in 0..w {
            for y in 0..h {
                if (pixels[y * w + x] != 0) != set {
                    mask.runs.push(run);
                    (set, run) = (!set, 0);
                }
                run += 1;
            }
        }
        mask.runs.push(run);
        mask
    }

    /// From the pixels of a part of the picture, row by row: `width` × `height` from column `left` and row `top` on. The rest is background.
    ///
    /// # Panics
    /// The part reaches beyond the picture, or has other pixels.
    #[must_use]
    pub fn of_part(whole_height: u32, whole_width: u32, [left, top, width, height]: [u32; 4], pixels: &[u8]) -> Self {
        assert!(left + width <= whole_width && top + height <= whole_height, "a part of the picture");
        assert_eq!(pixels.len(), width as usize * height as usize, "pixels of the part");
        let mut changes = vec![];
        for column in 0..width {
            let mut set = false;
            let first = (left + column) * whole_height + top;
            for row in 0..height {
                if (pixels[(row * width + column) as usize] != 0) != set {
                    changes.push(first + row);
                    set = !set;
                }
            }
            if set {
                changes.push(first + height);
            }
        }
        Self::of_changes(whole_height, whole_width, changes)
    }

    /// No runs yet.
    fn of_starts(height: u32, width: u32) -> Self {
        Self {
            height,
            width,
            runs: Vec::new(),
        }
    }

    /// From places, in the order of pixels down the columns, at which background becomes object and object background. A place that comes twice counts
    /// twice, so that it changes nothing.
    pub(super) fn of_changes(height: u32, width: u32, mut changes: Vec<u32>) -> Self {
        changes.push(height * width);
        changes.sort_unstable();
        let mut mask = Self::of_starts(height, width);
        let mut last = 0;
        let mut lengths = changes.into_iter().map(|place| place - std::mem::replace(&mut last, place));
        // An empty run joins those before and behind it; the first may be empty, for a mask that begins with object.
        mask.runs.extend(lengths.next());
        while let Some(length) = lengths.next() {
            if length > 0 {
                mask.runs.push(length);
            } else if let (Some(joined), Some(before)) = (lengths.next(), mask.runs.last_mut()) {
                *before += joined;
            }
        }
        mask
    }

    /// Pixels of a row, of background and object.
    #[must_use]
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Pixels of a column, of background and object.
    #[must_use]
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Lengths of the runs, background first.
    #[must_use]
    pub fn runs(&self) -> &[u32] {
        &self.runs
    }

    /// Pixels of the object.
    #[must_use]
    pub fn area(&self) -> u64 {
        self.runs.iter().skip(1).step_by(2).map(|&run| u64::from(run)).sum()
    }

    /// Where object begins and ends, down the columns.
    fn objects(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let mut at = 0;
        self.runs.chunks(2).filter_map(move |pair| {
            let start = at + u64::from(pair[0]);
            let end = start + u64::from(*pair.get(1)?);
            at = end;
            (end > start).then_some((start, end))
        })
    }

    /// Pixels that both have.
    #[must_use]
    pub fn common(&self, other: &Self) -> u64 {
        let (mut ours, mut theirs) = (self.objects().peekable(), other.objects().peekable());
        let mut pixels = 0;
        while let (Some(&a), Some(&b)) = (ours.peek(), theirs.peek()) {
            pixels += a.1.min(b.1).saturating_sub(a.0.max(b.0));
            if a.1 <= b.1 {
                ours.next();
            } else {
                theirs.next();
            }
        }
        pixels
    }

    /// The smallest box around the object: left, top, width, height in pixels; zeros for an empty mask.
    #[must_use]
    pub fn bounds(&self) -> [f64; 4] {
        let height = u64::from(self.height);
        let (mut left, mut right, mut top, mut bottom) = (u64::MAX, 0, u64::MAX, 0);
        for (start, end) in self.objects() {
            let last = end - 1;
            let (first_column, last_column) = (start / height, last / height);
            left = left.min(first_column);
            right = right.max(last_column);
            if first_column == last_column {
                top = top.min(start % height);
                bottom = bottom.max(last % height);
            } else {
                (top, bottom) = (0, height - 1);
            }
        }
        if left == u64::MAX {
            return [0.0; 4];
        }
        [left, top, right - left + 1, bottom - top + 1].map(|pixels| pixels as f64)
    }

    /// Both together, or what both have.
    #[must_use]
    pub fn united(&self, other: &Self) -> Self {
        let size = u64::from(self.height) * u64::from(self.width);
        let mut spans: Vec<(u64, u64)> = self.objects().chain(other.objects()).collect();
        spans.sort_unstable();
        let (mut runs, mut end) = (Vec::new(), 0u64);
        for (start, stop) in spans {
            match runs.last_mut() {
                Some(last) if start <= end => *last += stop.saturating_sub(end) as u32,
                _ => runs.extend([(start - end) as u32, (stop - start) as u32]),
            }
            end = end.max(stop);
        }
        if end < size || runs.is_empty() {
            runs.push((size - end) as u32);
        }
        Self { runs, ..self.clone() }
    }

    /// Those of the `width` × `height` pixels from column `left` and row `top` on, row by row, 1 = object.
    ///
    /// # Panics
    /// If they reach beyond the picture.
    #[must_use]
    pub fn pixels_within(&self, [left, top, width, height]: [u32; 4]) -> Vec<u8> {
        assert!(left + width <= self.width && top + height <= self.height, "pixels of the picture");
        let [left, top, columns, rows] = [left, top, width, height].map(|side| side as usize);
        let whole = self.height as usize;
        let mut pixels = vec![0; columns * rows];
        for (start, end) in self.objects() {
            let (start, end) = (start as usize, end as usize);
            let last = ((end - 1) / whole + 1).min(left + columns);
            for column in (start / whole).max(left)..last {
                let from = start.saturating_sub(column * whole).max(top);
                let to = (end - column * whole).min(top + rows);
                for row in from..to {
                    pixels[(row - top) * columns + column - left] = 1;
                }
            }
        }
        pixels
    }

    /// Pixels row by row, 1 = object.
    #[must_use]
    pub fn pixels(&self) -> Vec<u8> {
        let (h, w) = (self.height as usize, self.width as usize);
        let mut pixels = vec![0; h * w];
        for (start, end) in self.objects() {
            for at in start as usize..end as usize {
                pixels[at % h * w + at / h] = 1;
            }
        }
        pixels
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn runs_come_back_from_their_text_and_parts_are_those_of_the_whole(
            height in 1u32..14, width in 1u32..14, pixels in prop::collection::vec(0u8..2, 196), part in prop::array::uniform4(0u32..14),
        ) {
            let all = &pixels[..(height * width) as usize];
            let mask = RunLength::of_pixels(height, width, all);
            prop_assert_eq!(&RunLength::of_text(height, width, &mask.text()).unwrap(), &mask);
            let (left, top) = (part[0] % width, part[1] % height);
            let (columns, rows) = (part[2] % (width - left) + 1, part[3] % (height - top) + 1);
            let within = mask.pixels_within([left, top, columns, rows]);
            let expected: Vec<u8> = (top..top + rows)
                .flat_map(|y| (left..left + columns).map(move |x| (x, y)))
                .map(|(x, y)| all[(y * width + x) as usize])
                .collect();
            prop_assert_eq!(&within, &expected);
            let part = RunLength::of_part(height, width, [left, top, columns, rows], &within);
            prop_assert_eq!(part.pixels_within([left, top, columns, rows]), expected);
            prop_assert_eq!(part.area(), within.iter().map(|p| u64::from(*p)).sum::<u64>());
            prop_assert_eq!(&part, &RunLength::of_pixels(height, width, &part.pixels()));
        }
    }

    #[test]
    fn text_is_that_of_pycocotools() {
        // pycocotools.mask.encode of a mask of 4 × 6 pixels whose rows 1 and 2 hold object in columns 2 to 4; and of 100 × 200 with columns 3 to 150.
        let mut pixels = vec![0; 24];
        [1, 2].into_iter().for_each(|y| pixels[y * 6 + 2..y * 6 + 5].fill(1));
        assert_eq!(RunLength::of_pixels(4, 6, &pixels).text(), "9220003");
        let wide = RunLength::of_runs(100, 200, vec![300, 14_800, 4900]).unwrap();
        assert_eq!(wide.text(), r"\9`^>Ti4");
    }
}
