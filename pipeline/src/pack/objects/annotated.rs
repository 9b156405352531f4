//! What files in COCO's form say of each picture, found by its path.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use super::picture::Annotated;
use super::{Dropped, ObjectOptions, drop_one};
use crate::coco::{Category, CocoError, CocoFile};
use crate::pack::error::PackError;
use crate::pack::found::Found;
use crate::pack::report::EXAMPLES;

/// The pictures of one file.
struct Pictures {
    by_path: HashMap<Vec<u8>, Arc<Annotated>>,
    /// Paths in the order of the file.
    paths: Vec<String>,
}

/// What the files say.
pub(in crate::pack) struct Annotations {
    /// In the order of their ids.
    pub(in crate::pack) classes: Vec<Category>,
    /// That of the images, and that of a folder of validation images.
    files: [Option<Pictures>; 2],
    /// Annotations that belong to nothing.
    pub(in crate::pack) dropped: Dropped,
    /// Annotations in all.
    pub(in crate::pack) number: usize,
}

fn refused(file: &Path, place: &str, detail: String) -> PackError {
    CocoError {
        file: file.display().to_string(),
        place: place.into(),
        detail,
    }
    .into()
}

impl Annotations {
    /// Reads the files.
    ///
    /// # Errors
    /// A file that cannot be read, has no class or annotation, or names a class or picture twice; files of different classes.
    pub(in crate::pack) fn read(options: &ObjectOptions) -> Result<Self, PackError> {
        let mut all = Self {
            classes: vec![],
            files: [None, None],
            dropped: Dropped::default(),
            number: 0,
        };
        for (n, file) in std::iter::once(&options.file).chain(&options.val_file).enumerate() {
            let content = CocoFile::read(file)?;
            let classes = content.sorted_categories();
            if n == 0 {
                all.classes = checked(classes, file)?;
            } else if classes != all.classes {
                let other = classes.iter().find(|class| !all.classes.contains(class));
                let missing = all.classes.iter().find(|class| !classes.contains(class));
                let told = |class: &Category| format!("{:?} (id {})", class.name, class.id);
                let what = match (other, missing) {
                    (Some(class), _) => format!("{} is none of those of {}", told(class), options.file.display()),
                    (None, class) => format!("{} of {} is missing", class.map(told).unwrap_or_default(), options.file.display()),
                };
                return Err(refused(file, "categories", what));
            }
            all.number += content.annotations.len();
            all.files[n] = Some(all.pictures(content, file)?);
        }
        Ok(all)
    }

    fn pictures(&mut self, content: CocoFile, file: &Path) -> Result<Pictures, PackError> {
        let class: HashMap<u64, u32> = (0..).zip(&self.classes).map(|(index, class)| (class.id, index)).collect();
        let places: HashMap<u64, usize> = content.images.iter().enumerate().map(|(n, picture)| (picture.id, n)).collect();
        let mut pictures: Vec<Annotated> = content
            .images
            .iter()
            .map(|picture| Annotated {
                id: picture.id,
                width: picture.width,
                height: picture.height,
                lost: 0,
                annotations: vec![],
            })
            .collect();
        for annotation in content.annotations {
            let (id, image, category) = (annotation.id, annotation.image_id, annotation.category_id);
            let told = |what: String| format!("{}: annotation {id}: {what}", file.display());
            match (places.get(&image), class.get(&category)) {
                (None, _) => drop_one(&mut self.dropped, "unknown_picture", || {
                    told(format!("image_id {image} is none of images"))
                }),
                (Some(place), None) => {
                    pictures[*place].lost += 1;
                    drop_one(&mut self.dropped, "unknown_category", || {
                        told(format!("category_id {category} is none of categories"))
                    });
                }
                (Some(place), Some(class)) => pictures[*place].annotations.push((*class, annotation)),
            }
        }
        let mut found = Pictures {
            by_path: HashMap::new(),
            paths: vec![],
        };
        for (n, (picture, listed)) in pictures.into_iter().zip(content.images).enumerate() {
            let path = listed.file_name.strip_prefix("./").unwrap_or(&listed.file_name).to_owned();
            let place = || format!("images[{n}] (id {})", listed.id);
            if path.is_empty() {
                return Err(refused(
                    file,
                    &place(),
                    "file_name is missing: the path below the folder of the images".into(),
                ));
            }
            if found.by_path.insert(path.clone().into(), Arc::new(picture)).is_some() {
                return Err(refused(
                    file,
                    &place(),
                    format!("file_name {path:?} was there before: an image is one picture"),
                ));
            }
            found.paths.push(path);
        }
        Ok(found)
    }

    /// What is said of an image; `set` is the folder of its set where the input holds several.
    pub(in crate::pack) fn of(&self, found: &Found, set: Option<&[u8]>) -> Option<Arc<Annotated>> {
        let path = set.map_or_else(|| found.relative.clone(), |set| [set, b"/", &found.relative].concat());
        self.file_of(found)?.by_path.get(&path).cloned()
    }

    fn file_of(&self, found: &Found) -> Option<&Pictures> {
        let [file, val_file] = &self.files;
        val_file.as_ref().filter(|_| found.val).or(file.as_ref())
    }

    /// Pictures that are none of the images: how many, and the paths of the first few.
    ///
    /// # Errors
    /// There is no image with objects at all: the file belongs to other images.
    pub(in crate::pack) fn missing(&self, images: &[Found], options: &ObjectOptions) -> Result<(u64, Vec<String>), PackError> {
        let used: std::collections::HashSet<*const Annotated> = images.iter().filter_map(|f| f.objects.as_ref().map(Arc::as_ptr)).collect();
        let (mut number, mut first) = (0, vec![]);
        for (pictures, file) in self
            .files
            .iter()
            .flatten()
            .zip(std::iter::once(&options.file).chain(&options.val_file))
        {
            let missing: Vec<&String> = pictures
                .paths
                .iter()
                .filter(|path| !used.contains(&Arc::as_ptr(&pictures.by_path[path.as_bytes()])))
                .collect();
            if missing.len() == pictures.paths.len() {
                let example = missing
                    .first()
                    .map_or("it lists none".into(), |path| format!("the first is called {path:?}"));
                return Err(refused(
                    file,
                    "images",
                    format!(
                        "none of its {} pictures is among the images; {example}, and file_name is the path below the folder of the images",
                        missing.len()
                    ),
                ));
            }
            number += missing.len() as u64;
            first.extend(missing.into_iter().take(EXAMPLES - first.len().min(EXAMPLES)).cloned());
        }
        Ok((number, first))
    }
}

/// Classes that can be learnt.
fn checked(classes: Vec<Category>, file: &Path) -> Result<Vec<Category>, PackError> {
    if classes.is_empty() {
        return Err(refused(file, "categories", "there is none: the classes of the objects".into()));
    }
    if let Some(nameless) = classes.iter().find(|class| class.name.trim().is_empty()) {
        return Err(refused(
            file,
            "categories",
            format!("id {} has no name, by which sets are matched", nameless.id),
        ));
    }
    let mut names = std::collections::HashSet::new();
    match classes.iter().find(|class| !names.insert(class.name.as_str())) {
        Some(twice) => Err(refused(
            file,
            "categories",
            format!("{:?} stands twice, and sets are matched by the names of their classes", twice.name),
        )),
        None => Ok(classes),
    }
}
