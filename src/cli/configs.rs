//! `splitmask configs`: the recipes that came with the program, and where they lie.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::cli::answer::say;
use crate::cli::installation::installation;
use crate::exit::CliError;

const EXAMPLES: &str = "\
Examples:
  splitmask configs                                       # which there are
  cp \"$(splitmask configs small-data)\" mine.toml          # a copy to edit
  splitmask train --config \"$(splitmask configs tiny)\" --set data.train=data/mine/train";

/// List the recipes that came with this program; with a name, print where that one lies.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ConfigsArgs {
    /// A recipe, as the list names it.
    name: Option<String>,
}

/// A recipe: name as typed, file, and its first line of comment.
struct Recipe {
    name: String,
    file: PathBuf,
    title: String,
}

pub(crate) fn run(args: &ConfigsArgs) -> Result<(), CliError> {
    let folder = folder()?;
    let recipes = recipes(&folder)?;
    let Some(name) = &args.name else {
        let width = recipes.iter().map(|r| r.name.len()).max().unwrap_or(0);
        say!("in {}:", folder.display());
        for recipe in &recipes {
            say!("  {:width$}  {}", recipe.name, recipe.title);
        }
        let dashboards = folder.with_file_name("dashboards");
        if dashboards.is_dir() {
            say!("Prometheus rules and the Grafana dashboard: {}", dashboards.display());
        }
        return Ok(());
    };
    let wanted = name.trim_end_matches(".toml");
    let Some(recipe) = recipes.iter().find(|r| r.name == wanted) else {
        let near = recipes
            .iter()
            .max_by(|a, b| strsim::jaro(&a.name, wanted).total_cmp(&strsim::jaro(&b.name, wanted)));
        return Err(CliError::usage(
            format!("no recipe is called {name:?} in {}", folder.display()),
            near.map(|r| format!("did you mean {}? `splitmask configs` lists all", r.name)),
        ));
    };
    say!("{}", recipe.file.display());
    Ok(())
}

/// The folder of recipes: that of the installation, else `configs` of a checkout that one stands in.
fn folder() -> Result<PathBuf, CliError> {
    let installed = installation().map(|prefix| prefix.join("share/splitmask/configs"));
    let here = std::env::current_dir().ok().map(|d| d.join("configs"));
    installed
        .into_iter()
        .chain(here.filter(|c| c.join("demo.toml").is_file()))
        .find(|c| c.is_dir())
        .ok_or_else(|| {
            CliError::usage(
                "no recipes are here: this program is not part of an installation, and there is no configs/demo.toml in this folder",
                "go to the folder of the source, or install the wheel or the tarball (docs/install.md)".to_owned(),
            )
        })
}

/// All recipes below `folder`, in order of their names; one in a sub-folder is called `ablation/beit`.
fn recipes(folder: &Path) -> Result<Vec<Recipe>, CliError> {
    let mut found = Vec::new();
    for entry in walkdir::WalkDir::new(folder).sort_by_file_name() {
        let entry = entry.map_err(|e| CliError::io(format!("{}: {e}", folder.display())))?;
        if entry.path().extension().is_none_or(|e| e != "toml") {
            continue;
        }
        let file = entry.into_path();
        let text = std::fs::read_to_string(&file).map_err(|e| CliError::io(format!("{}: {e}", file.display())))?;
        let title = text
            .lines()
            .next()
            .and_then(|l| l.strip_prefix('#'))
            .unwrap_or("")
            .trim()
            .to_owned();
        let name = file
            .strip_prefix(folder)
            .unwrap_or(&file)
            .with_extension("")
            .to_string_lossy()
            .into_owned();
        found.push(Recipe { name, file, title });
    }
    Ok(found)
}
