//! The objects of all scenes of a set, in COCO's form.

use serde_json::{Value, json};
use splitmask_pipeline::coco::Segmentation;

use super::compose::Scene;
use super::drawings::CLASSES;

/// What is collected of the scenes.
pub(super) struct Annotations {
    side: u32,
    images: Vec<Value>,
    annotations: Vec<Value>,
}

impl Annotations {
    /// Of scenes of this side; none yet.
    pub(super) fn new(side: u32) -> Self {
        Self {
            side,
            images: vec![],
            annotations: vec![],
        }
    }

    /// Takes in a scene, whose file is called `name` below the folder of its set.
    pub(super) fn add(&mut self, number: u32, name: &str, scene: &Scene) {
        self.images
            .push(json!({ "id": number, "file_name": name, "width": self.side, "height": self.side }));
        for object in &scene.objects {
            // COCO's own program takes the id 0 for "none".
            let id = self.annotations.len() + 1;
            self.annotations.push(json!({
                "id": id, "image_id": number, "category_id": object.class, "bbox": object.area, "area": object.pixels, "iscrowd": 0,
                "segmentation": Segmentation::of(&object.mask),
            }));
        }
    }

    /// All of it.
    pub(super) fn json(&self) -> Value {
        let categories: Vec<Value> = (1..).zip(CLASSES).map(|(id, name)| json!({ "id": id, "name": name })).collect();
        json!({ "images": self.images, "annotations": self.annotations, "categories": categories })
    }
}
