//! What was marked and what was found, as COCO's rules compare them.

use std::collections::BTreeMap;

use splitmask_pipeline::bucket::classes::ClassMap;
use splitmask_pipeline::coco::RunLength;
use splitmask_pipeline::decode::{MarkedObject, Objects, Orientation};
use splitmask_pipeline::types::Image;

use super::finder::Sure;
use super::precision::Precision;
use crate::detection::{Annotated, Category, Detection, Detections, Object, Shape, Truth, evaluate};
use crate::eval::classes::Remarks;
use crate::eval::error::EvalError;
use crate::eval::marks::{Dropped, Marks};

/// One of the two comparisons.
#[derive(Default)]
struct Side {
    marked: Vec<Annotated>,
    found: Vec<Detection>,
}

/// Everything of the pictures so far.
pub(super) struct Judged {
    by_name: ClassMap,
    boxes: Side,
    masks: Side,
    objects: usize,
    crowds: usize,
    /// Objects and crowds without a mask.
    without_mask: [usize; 2],
    /// Objects by a class of the set that no learnt class goes with.
    unknown: BTreeMap<u32, u64>,
    /// Pictures whose findings are known.
    seen: usize,
}

/// A mask of the stored picture as it lies on the upright one.
fn upright(mask: &RunLength, orientation: Orientation) -> RunLength {
    if orientation.is_upright() {
        return mask.clone();
    }
    let stored = mask.pixels();
    let (width, height) = orientation.size(mask.width(), mask.height());
    let (start, step_x, step_y) = orientation.walk(mask.width() as usize, mask.height() as usize);
    let at = |x: isize, y: isize| stored[(start + x * step_x + y * step_y) as usize];
    let pixels: Vec<u8> = (0..height as isize)
        .flat_map(|y| (0..width as isize).map(move |x| (x, y)))
        .map(|(x, y)| at(x, y))
        .collect();
    RunLength::of_pixels(height, width, &pixels)
}

impl Judged {
    pub(super) fn new(by_name: ClassMap) -> Self {
        Self {
            by_name,
            boxes: Side::default(),
            masks: Side::default(),
            objects: 0,
            crowds: 0,
            without_mask: [0; 2],
            unknown: BTreeMap::new(),
            seen: 0,
        }
    }

    /// Pictures that were taken in.
    pub(super) fn images(&self) -> usize {
        self.boxes.marked.len()
    }

    /// Takes in what is marked in the next picture.
    pub(super) fn marked(&mut self, objects: &Objects, orientation: Orientation, picture: &Image) {
        let id = self.images() as u64 + 1;
        let annotated = || Annotated {
            id,
            height: picture.height,
            width: picture.width,
            objects: vec![],
        };
        self.boxes.marked.push(annotated());
        self.masks.marked.push(annotated());
        for object in &objects.marked {
            let Ok(category) = u64::try_from(self.by_name.label(object.class.into())) else {
                *self.unknown.entry(object.class).or_default() += 1;
                continue;
            };
            self.object(object, category, orientation, objects);
        }
    }

    fn object(&mut self, marked: &MarkedObject, category: u64, orientation: Orientation, of: &Objects) {
        let counted = if marked.crowd { &mut self.crowds } else { &mut self.objects };
        *counted += 1;
        let area = orientation.upright(marked.area, of.width, of.height);
        let mask = marked.mask.as_ref().map(|mask| upright(mask, orientation));
        let pixels = mask.as_ref().map_or(area.width * area.height, |mask| mask.area() as f64);
        let object = |shape: Shape| Object {
            category,
            shape,
            area: pixels,
            crowd: marked.crowd,
        };
        let last = self.boxes.marked.last_mut().expect("a picture was begun");
        last.objects.push(object(Shape::Box([area.x, area.y, area.width, area.height])));
        match mask {
            Some(mask) => {
                let last = self.masks.marked.last_mut().expect("a picture was begun");
                last.objects.push(object(Shape::Mask(mask)));
            }
            None => self.without_mask[usize::from(marked.crowd)] += 1,
        }
    }

    /// Takes in what was found in the pictures that were marked last.
    pub(super) fn found(&mut self, found: &[Vec<Sure>], pictures: &[Image]) {
        for (found, picture) in found.iter().zip(pictures) {
            self.seen += 1;
            for Sure { object, probability } in found {
                let detection = |shape: Shape| Detection {
                    picture: self.seen as u64,
                    category: object.class.into(),
                    shape,
                    score: f64::from(*probability),
                };
                let [left, top, right, bottom] = object.corners.map(f64::from);
                self.boxes
                    .found
                    .push(detection(Shape::Box([left, top, right - left, bottom - top])));
                if let Some(mask) = &object.mask {
                    let part = [mask.left, mask.top, mask.width, mask.height];
                    let runs = RunLength::of_part(picture.height, picture.width, part, &mask.pixels);
                    self.masks.found.push(detection(Shape::Mask(runs)));
                }
            }
        }
    }

    /// The comparison with all of it.
    pub(super) fn answer(self, marks: &Marks<'_>, dropped: Dropped) -> Result<Precision, EvalError> {
        let (place, learnt) = (marks.place, marks.learnt);
        if self.images() == 0 {
            let place = place.to_owned();
            return Err(match dropped.example() {
                Some(example) => EvalError::NoObjects { place, example },
                None => EvalError::Empty { place },
            });
        }
        if self.objects == 0 {
            let shown = self.unknown.keys().map(|class| *class as usize);
            return Err(marks.none_learnt(self.images(), shown, learnt.len(), "no object"));
        }
        let used = self
            .boxes
            .marked
            .iter()
            .flat_map(|picture| &picture.objects)
            .map(|object| object.category);
        let called = self.boxes.found.iter().map(|found| found.category);
        let classes = used.chain(called).max().map_or(0, |last| last as usize + 1).max(learnt.len());
        let categories: Vec<Category> = (0..classes)
            .map(|class| Category {
                id: class as u64,
                name: marks.learnt(class),
            })
            .collect();
        let averages = |side: Side| {
            let truth = Truth {
                categories: categories.clone(),
                pictures: side.marked,
                remarks: vec![],
            };
            evaluate(&truth, &Detections { found: side.found })
        };
        let unknown = self.unknown.iter().map(|(class, objects)| (*class as usize, *objects));
        let left_out = marks.left_out(unknown, "objects");
        let [without, crowds] = self.without_mask;
        let no_masks = (without > 0).then(|| {
            format!(
                "{without} of {} objects of {place} have no mask: masks are not judged, for what is found there would count as wrong",
                self.objects
            )
        });
        let some_crowds =
            (without == 0 && crowds > 0).then(|| format!("{crowds} crowds of {place} have no mask: masks found in them count as wrong"));
        let warnings: Vec<String> = [marks.warning(), no_masks, some_crowds].into_iter().flatten().collect();
        let (images, found) = (self.images(), self.boxes.found.len());
        Ok(Precision {
            images,
            objects: self.objects,
            crowds: self.crowds,
            found,
            boxes: averages(self.boxes),
            masks: (without == 0).then(|| averages(self.masks)),
            dropped,
            remarks: Remarks {
                left_out,
                warning: (!warnings.is_empty()).then(|| warnings.join("; ")),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use splitmask_pipeline::decode::Rect;
    use splitmask_pipeline::types::{Object as Seen, ObjectMask};

    use super::*;

    fn picture() -> Image {
        Image {
            width: 30,
            height: 20,
            pixels: vec![],
        }
    }

    fn marked(class: u32, area: [f64; 4], mask: bool) -> MarkedObject {
        let [x, y, width, height] = area;
        let part = area.map(|side| side as u32);
        let pixels = vec![1; (width * height) as usize];
        MarkedObject {
            class,
            area: Rect { x, y, width, height },
            crowd: false,
            mask: mask.then(|| RunLength::of_part(20, 30, part, &pixels)),
        }
    }

    fn sure(class: u32, [left, top, width, height]: [u32; 4], probability: f32) -> Sure {
        Sure {
            object: Seen {
                class,
                corners: [left, top, left + width, top + height].map(|edge| edge as f32),
                crowd: false,
                mask: Some(ObjectMask {
                    left,
                    top,
                    width,
                    height,
                    pixels: vec![1; (width * height) as usize],
                }),
            },
            probability,
        }
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn marks<'a>(theirs: &[String], learnt: &'a [String]) -> Marks<'a> {
        Marks {
            place: "v",
            theirs: theirs.to_vec(),
            learnt,
        }
    }

    fn objects(marked: Vec<MarkedObject>) -> Objects {
        Objects {
            width: 30,
            height: 20,
            marked,
        }
    }

    #[test]
    fn what_is_found_where_it_is_has_precision_1_and_classes_go_by_name() {
        let (theirs, learnt) = (names(&["dog", "cat", "owl"]), names(&["cat", "dog"]));
        let mut judged = Judged::new(ClassMap::new(&theirs, &learnt));
        let of = objects(vec![
            marked(0, [1.0, 2.0, 10.0, 6.0], true),
            marked(1, [15.0, 4.0, 8.0, 9.0], true),
            marked(2, [0.0, 0.0, 4.0, 4.0], true),
        ]);
        judged.marked(&of, Orientation::default(), &picture());
        judged.marked(&objects(vec![]), Orientation::default(), &picture());
        let found = [vec![sure(1, [1, 2, 10, 6], 0.9), sure(0, [15, 4, 8, 9], 0.8)], vec![]];
        judged.found(&found, &[picture(), picture()]);
        let precision = judged.answer(&marks(&theirs, &learnt), Dropped::default()).unwrap();
        assert_eq!((precision.images, precision.objects, precision.found), (2, 2, 2));
        assert!((precision.boxes.precision.unwrap() - 1.0).abs() < 1e-9);
        assert!((precision.masks.unwrap().precision.unwrap() - 1.0).abs() < 1e-9);
        let told = precision.remarks.lines().join("\n");
        assert!(told.contains("owl") && told.contains('1'), "{told}");
    }

    #[test]
    fn objects_without_masks_are_judged_by_their_boxes_alone_and_that_is_told() {
        let learnt = names(&["cat"]);
        let mut judged = Judged::new(ClassMap::new(&learnt, &learnt));
        let of = objects(vec![marked(0, [1.0, 2.0, 10.0, 6.0], false)]);
        judged.marked(&of, Orientation::default(), &picture());
        judged.found(&[vec![sure(0, [1, 2, 10, 6], 0.9)]], &[picture()]);
        let precision = judged.answer(&marks(&learnt, &learnt), Dropped::default()).unwrap();
        assert!(precision.boxes.precision.is_some() && precision.masks.is_none());
        assert!(precision.remarks.warning.unwrap().contains("1 of 1 objects of v have no mask"));
        let nothing = Judged::new(ClassMap::new(&[], &[]));
        let refused = nothing.answer(&marks(&[], &[]), Dropped(BTreeMap::from([("no_objects", (2, "x".into()))])));
        assert!(refused.unwrap_err().to_string().contains("no sample has objects"));
    }

    #[test]
    fn turned_masks_lie_on_the_upright_picture() {
        // A camera held on its side: 30 × 20 stored, 20 × 30 upright.
        let orientation = Orientation::from_exif(6);
        let mask = RunLength::of_part(20, 30, [2, 3, 5, 4], &[1; 20]);
        let area = Rect {
            x: 2.0,
            y: 3.0,
            width: 5.0,
            height: 4.0,
        };
        let turned = upright(&mask, orientation);
        let there = orientation.upright(area, 30, 20);
        assert_eq!((turned.width(), turned.height()), (20, 30));
        assert_eq!(turned.bounds(), [there.x, there.y, there.width, there.height]);
    }
}
