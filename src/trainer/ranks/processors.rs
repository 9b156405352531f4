//! With how many other ranks this one divides the processors that it may use.

/// Whose processors this process uses: the list of them and its control group, which tells containers of one host apart, whose quota is their own.
pub(super) fn own() -> String {
    let group = std::fs::read_link("/proc/self/ns/cgroup").unwrap_or_default();
    format!("{} {}", allowed(), group.display())
}

/// The processors that this process may use, as the kernel lists them (`0-3,8`): all of its machine, or those that its launcher, `taskset` or `numactl` left
/// it. Empty where the kernel does not say.
fn allowed() -> String {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let list = text.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    list.unwrap_or_default().trim().to_owned()
}

/// How many ranks may use the processors of `rank`: itself and those of its host with the same list. One with a list of its own was pinned apart.
pub(super) fn sharing(hosts: &[&str], lists: &[Vec<u8>], rank: usize) -> usize {
    let own = (hosts[rank], &lists[rank]);
    hosts.iter().zip(lists).filter(|(host, list)| (**host, *list) == own).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_that_are_pinned_apart_divide_nothing() {
        let of = |hosts: &[&str], lists: &[&str]| -> Vec<usize> {
            let lists: Vec<Vec<u8>> = lists.iter().map(|list| list.as_bytes().to_vec()).collect();
            (0..hosts.len()).map(|rank| sharing(hosts, &lists, rank)).collect()
        };
        assert_eq!(of(&["a"; 4], &["0-63"; 4]), [4; 4], "torchrun");
        assert_eq!(
            of(&["a"; 4], &["0-15", "16-31", "32-47", "48-63"]),
            [1; 4],
            "taskset, or SLURM with tasks bound"
        );
        assert_eq!(of(&["a"; 4], &["0-31", "0-31", "32-63", "32-63"]), [2; 4], "two ranks to a socket");
        assert_eq!(of(&["a", "a", "b"], &["0-7"; 3]), [2, 2, 1]);
        assert_eq!(of(&["a", "a"], &["", ""]), [2, 2], "a kernel that does not say");
    }

    #[test]
    fn this_machine_lists_as_many_as_can_be_used() {
        let list = allowed();
        let number = |n: &str| n.parse::<usize>().unwrap();
        let count = |part: &str| part.split_once('-').map_or(1, |(first, last)| number(last) - number(first) + 1);
        let listed: usize = list.split(',').map(count).sum();
        // A control group may leave less time than that of all processors.
        let used = std::thread::available_parallelism().unwrap().get();
        assert!(used <= listed, "{list}: {listed}, {used}");
    }
}
