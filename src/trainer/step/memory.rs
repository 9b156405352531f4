//! How much memory this process has, and may still take, as Linux tells it.

use std::fs;
use std::path::{Path, PathBuf};

/// Value of a line such as `VmRSS:   1234 kB` in bytes.
pub(super) fn kilobytes(file: &str, field: &str) -> Option<f64> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix(field)?.strip_prefix(':'))?;
    Some(line.split_whitespace().next()?.parse::<f64>().ok()? * 1024.0)
}

/// Bytes that this process may still take: of the machine, or of the tightest of its control groups if that is less (cgroups of either version).
pub(super) fn free_memory() -> Option<f64> {
    let machine = kilobytes("/proc/meminfo", "MemAvailable")?;
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let rooms = groups.lines().filter_map(|line| room(line, Path::new("/sys/fs/cgroup")));
    Some(rooms.fold(machine, f64::min))
}

/// The room that a line of `/proc/self/cgroup` leaves, in the group itself or one around it: `0::/PATH` of version 2, `N:memory:/PATH` of version 1.
fn room(line: &str, root: &Path) -> Option<f64> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (controllers, path) = (parts.next()?, parts.next()?.trim_start_matches('/'));
    let (root, files) = match controllers {
        "" => (root.to_owned(), ["memory.max", "memory.current", "inactive_file"]),
        of if of.split(',').any(|controller| controller == "memory") => (
            root.join("memory"),
            ["memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"],
        ),
        _ => return None,
    };
    let group: PathBuf = root.join(path);
    // Within a container the path may lead beyond what is mounted there: its own group is the root then.
    let around = group.ancestors().take_while(|folder| folder.starts_with(&root));
    around.filter_map(|folder| left(folder, files)).reduce(f64::min)
}

/// What a group's limit leaves of it. Pages of files that were not read lately are given up before anything fails, so they count as free.
fn left(group: &Path, [most, now, inactive]: [&str; 3]) -> Option<f64> {
    let number = |file: &str| fs::read_to_string(group.join(file)).ok()?.trim().parse::<f64>().ok();
    let (most, now) = (number(most)?, number(now)?);
    let stat = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
    let files = stat
        .lines()
        .find_map(|line| line.strip_prefix(inactive)?.trim().parse::<f64>().ok());
    Some((most - now + files.unwrap_or(0.0)).max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(folder: &Path, files: &[(&str, &str)]) {
        fs::create_dir_all(folder).unwrap();
        files.iter().for_each(|(name, text)| fs::write(folder.join(name), text).unwrap());
    }

    #[test]
    fn this_machine_tells_its_memory() {
        let (rss, free) = (kilobytes("/proc/self/status", "VmRSS").unwrap(), free_memory().unwrap());
        assert!(rss > 1e6 && free > 1e6, "{rss} {free}");
    }

    #[test]
    fn the_tightest_group_around_counts_and_pages_of_files_are_free() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        group(&root.join("slice/run"), &[("memory.max", "max\n"), ("memory.current", "10\n")]);
        group(
            &root.join("slice"),
            &[
                ("memory.max", "1000\n"),
                ("memory.current", "900\n"),
                ("memory.stat", "anon 500\ninactive_file 300\n"),
            ],
        );
        assert_eq!(room("0::/slice/run", root), Some(400.0));
        assert_eq!(room("0::/slice/other", root), Some(400.0), "a group that is not mounted here");
        assert_eq!(room("0::/", root), None, "no limit");
        assert_eq!(room("3:cpuset:/slice", root), None);
    }

    #[test]
    fn the_first_version_keeps_memory_in_a_tree_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        group(
            &dir.path().join("memory/job"),
            &[
                ("memory.limit_in_bytes", "1000\n"),
                ("memory.usage_in_bytes", "1200\n"),
                ("memory.stat", "inactive_file 1\ntotal_inactive_file 50\n"),
            ],
        );
        assert_eq!(room("4:hugetlb,memory:/job", dir.path()), Some(0.0));
    }
}
