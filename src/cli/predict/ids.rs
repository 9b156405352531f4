//! The numbers by which results call images and classes.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use splitmask_pipeline::coco::CocoFile;

use crate::exit::CliError;

/// Numbers of images and classes: their own, or those of a file in COCO's form.
pub(super) enum Ids {
    /// Images from 1 in the order in which they are looked at, classes from 1 in that of the run.
    Own,
    /// As a file calls them.
    Of {
        /// By the last part of their path: path and number.
        images: HashMap<PathBuf, Vec<(PathBuf, u64)>>,
        /// By index of the class.
        categories: Vec<u64>,
    },
}

impl Ids {
    /// Those of a file, if one is named. Its images are recognised by the ends of paths, its classes by name.
    ///
    /// # Errors
    /// A file that cannot be used; a class that was learnt and that it does not name.
    pub(super) fn of(file: Option<&Path>, learnt: &[String]) -> Result<Self, CliError> {
        let Some(path) = file else { return Ok(Self::Own) };
        let file = CocoFile::read(path).map_err(|e| CliError::usage(e.to_string(), None))?;
        let refused = |what: String| {
            CliError::usage(
                format!("--coco = {}: {what}", path.display()),
                "name the file that the run's data.val was packed with, or leave --coco out: then images and classes are numbered from 1"
                    .to_owned(),
            )
        };
        if learnt.is_empty() {
            return Err(refused("the run's classes have no names, so they cannot be found in it".into()));
        }
        let number = |name: &String| {
            let found = file.categories.iter().find(|category| category.name == *name);
            found
                .map(|category| category.id)
                .ok_or_else(|| refused(format!("none of its categories is {name:?}, which the run learnt")))
        };
        let categories = learnt.iter().map(number).collect::<Result<_, _>>()?;
        let mut images: HashMap<PathBuf, Vec<(PathBuf, u64)>> = HashMap::new();
        for picture in &file.images {
            let path = PathBuf::from(&picture.file_name);
            if let Some(last) = path.file_name() {
                images.entry(last.into()).or_default().push((path.clone(), picture.id));
            }
        }
        Ok(Self::Of { images, categories })
    }

    /// The number of a file that is the `n`-th one, from 1; `None` where the file does not name it.
    pub(super) fn image(&self, file: &Path, n: u64) -> Option<u64> {
        match self {
            Self::Own => Some(n),
            Self::Of { images, .. } => {
                let same = images.get(Path::new(file.file_name()?))?;
                same.iter().find(|(path, _)| file.ends_with(path)).map(|(_, id)| *id)
            }
        }
    }

    /// The number of a class.
    pub(super) fn category(&self, class: u32) -> u64 {
        match self {
            Self::Own => u64::from(class) + 1,
            Self::Of { categories, .. } => categories[class as usize],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_file_by_ends_of_paths_and_names_of_classes() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("val.json");
        let text = r#"{"images": [{"id": 7, "width": 1, "height": 1, "file_name": "a/x.jpg"}, {"id": 9, "width": 1, "height": 1, "file_name": "b/x.jpg"}],
            "annotations": [], "categories": [{"id": 3, "name": "cat"}, {"id": 1, "name": "dog"}]}"#;
        std::fs::write(&file, text).unwrap();
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let ids = Ids::of(Some(&file), &names(&["dog", "cat"])).unwrap();
        assert_eq!([0, 1].map(|class| ids.category(class)), [1, 3]);
        let image = |path: &str| ids.image(Path::new(path), 1);
        assert_eq!(
            ["p/a/x.jpg", "b/x.jpg", "x.jpg", "c.jpg"].map(image),
            [Some(7), Some(9), None, None]
        );
        let refused = Ids::of(Some(&file), &names(&["owl"])).err().unwrap();
        assert!(refused.message.contains("none of its categories is \"owl\""), "{}", refused.message);
        assert_eq!((Ids::Own.image(Path::new("x"), 4), Ids::Own.category(0)), (Some(4), 1));
    }
}
