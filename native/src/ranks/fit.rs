//! Who does not fit to the others, from what all say of themselves.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::ranks::{Member, Misfit};

/// Who does not fit, in the order of ranks.
pub(super) fn misfits(members: &[Member]) -> Vec<Misfit> {
    let zero = &members[0].greeting;
    let refusals = members.iter().enumerate().filter_map(|(rank, m)| {
        Some(Misfit::Refuses {
            rank,
            host: m.host.clone(),
            why: m.greeting.refusal.clone()?,
        })
    });
    let refusals: Vec<Misfit> = refusals.collect();
    if !refusals.is_empty() {
        // What else such a rank says of itself means little.
        return refusals;
    }
    let absent = || "none".to_owned();
    let mut out = Vec::new();
    for (rank, m) in members.iter().enumerate() {
        let host = || m.host.clone();
        let names: BTreeSet<&String> = zero.alike.keys().chain(m.greeting.alike.keys()).collect();
        for what in names {
            let (theirs, ours) = (m.greeting.alike.get(what), zero.alike.get(what));
            if theirs != ours {
                out.push(Misfit::Differs {
                    rank,
                    host: host(),
                    what: what.clone(),
                    theirs: theirs.cloned().unwrap_or_else(absent),
                    ours: ours.cloned().unwrap_or_else(absent),
                });
            }
        }
        if let Some(device) = &m.greeting.device_id
            && let Some(with) = members[..rank]
                .iter()
                .position(|o| o.host == m.host && o.greeting.device_id.as_ref() == Some(device))
        {
            out.push(Misfit::Shares {
                rank,
                host: host(),
                with,
                device: device.clone(),
            });
        }
    }
    // All at loopback addresses are on one host. One of several there would never be reached.
    let loopback = |m: &Member| m.address.filter(IpAddr::is_loopback);
    if !members.iter().all(|m| loopback(m).is_some()) {
        for (rank, m) in members.iter().enumerate() {
            if let Some(address) = loopback(m) {
                out.push(Misfit::Loopback {
                    rank,
                    host: m.host.clone(),
                    address: address.to_string(),
                });
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ranks::Greeting;

    fn member(host: &str, version: &str, device: Option<&str>, address: Option<&str>) -> Member {
        Member {
            host: host.into(),
            local_rank: 0,
            pid: 1,
            address: address.map(|a| a.parse().unwrap()),
            greeting: Greeting {
                device_id: device.map(Into::into),
                ..Greeting::default().with("version", version).with("device", "H100")
            },
        }
    }

    #[test]
    fn equal_ranks_fit_and_the_others_are_named() {
        let a = member("a", "1", Some("GPU-1"), Some("10.0.0.1"));
        let b = member("b", "1", Some("GPU-2"), Some("10.0.0.2"));
        assert_eq!(misfits(&[a.clone(), b.clone()]), []);
        let old = Member {
            greeting: b.greeting.clone().with("version", "0").with("codebook", "f00"),
            ..b
        };
        let text: Vec<String> = misfits(&[a, old]).iter().map(ToString::to_string).collect();
        assert_eq!(
            text,
            [
                "rank 1 on host b has codebook f00, rank 0 has none",
                "rank 1 on host b has version 0, rank 0 has 1"
            ]
        );
    }

    #[test]
    fn a_rank_that_cannot_start_is_all_that_is_told() {
        let a = member("a", "1", None, None);
        let mut b = member("b", "2", None, None);
        b.greeting.refusal = Some("c.toml: No such file".into());
        let found = misfits(&[a, b]);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].to_string(), "rank 1 on host b cannot start: c.toml: No such file");
    }

    #[test]
    fn a_device_given_twice_is_named() {
        let a = member("a", "1", Some("GPU-1"), None);
        assert_eq!(
            misfits(&[a.clone(), a]),
            [Misfit::Shares {
                rank: 1,
                host: "a".into(),
                with: 0,
                device: "GPU-1".into()
            }]
        );
        let cpu = member("a", "1", None, None);
        assert_eq!(misfits(&[cpu.clone(), cpu]), []);
    }

    #[test]
    fn a_rank_that_only_its_own_host_reaches_is_named() {
        let own = member("a", "1", None, Some("127.0.1.1"));
        let far = member("b", "1", None, Some("10.0.0.2"));
        assert_eq!(misfits(&[own.clone(), own.clone()]), []);
        let found = misfits(&[own, far]);
        assert!(matches!(&found[..], [Misfit::Loopback { rank: 0, .. }]), "{found:?}");
        assert!(found[0].to_string().contains("GLOO_SOCKET_IFNAME"));
    }
}
