//! A stop lets the mirror have the end of the run, or tells that it lacks it.

use std::fs;
use std::time::{Duration, Instant};

use super::{Store, journal, mirror_of, mirrored, steps};
use crate::ground::{Daemon, Ground};
use crate::store_proxy::{StoreProxy, Weather};

#[test]
fn a_stop_waits_for_the_last_upload_and_says_where_it_cannot() {
    let ground = Ground::new();
    let store = Store::start(&ground);
    let proxy = StoreProxy::before(&store.server.endpoint);
    let run = ground.path("stopped");
    let start = |grace: &str| {
        let grace = format!("admin.grace_s={grace}");
        mirrored(&ground, "stopped", &proxy.endpoint, &["optim.total_steps=1000000", &grace])
    };
    let mut daemon = Daemon::start(start("60"), &ground.path("log"));
    daemon.until("some steps", |d| d.status()["step"].as_u64().is_some_and(|step| step > 10));
    daemon.signal("TERM");
    assert_eq!(daemon.end().code(), Some(75));
    assert_eq!(store.steps(), steps(&run), "the last one is there");
    let stopped = journal(&store.bucket.join("x"));
    assert_eq!(stopped.last().unwrap()["event"], "stop", "{stopped:?}");

    let mut daemon = Daemon::start(start("4"), &ground.path("log"));
    daemon.until("it goes on", |d| {
        d.status()["state"] == "training" && mirror_of(d)["state"] == "current"
    });
    let at = *steps(&run).last().unwrap();
    daemon.until("a step", |d| d.status()["step"].as_u64().is_some_and(|step| step > at));
    proxy.turn(Weather::Away);
    let began = Instant::now();
    daemon.signal("TERM");
    assert_eq!(daemon.end().code(), Some(75));
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    let log = fs::read_to_string(ground.path("log")).unwrap();
    let (here, there) = (*steps(&run).last().unwrap(), *store.steps().last().unwrap());
    assert!(here > there);
    assert!(
        log.contains("the mirror does not have the end of this run: it has step") && log.contains(&format!("and step {here} is in")),
        "{log}"
    );

    // The same command uploads what was missing.
    proxy.turn(Weather::Fair);
    let mut daemon = Daemon::start(start("60"), &ground.path("log"));
    daemon.until("it is there", |_| store.steps().contains(&here));
    daemon.signal("TERM");
    assert_eq!(daemon.end().code(), Some(75));

    // Of a store that was away all the time nothing is known; also where the stop comes before the first step is done.
    proxy.turn(Weather::Away);
    for (log, slow) in [("away.log", false), ("early.log", true)] {
        let at = *steps(&run).last().unwrap();
        let mut command = start("8");
        if slow {
            command.args(["--set", &format!("debug.inject=\"slow@{at}\"")]);
        }
        let mut daemon = Daemon::start(command, &ground.path(log));
        let wanted = if slow { at } else { at + 1 };
        daemon.until("it has gone on", |d| d.status()["step"].as_u64().is_some_and(|step| step >= wanted));
        daemon.signal("TERM");
        assert_eq!(daemon.end().code(), Some(75));
        let told = fs::read_to_string(ground.path(log)).unwrap();
        assert!(told.contains("it never answered, so what it has is not known"), "{told}");
        assert_eq!(told.contains("stopped while no trainer ran"), slow, "{told}");
        assert!(*steps(&run).last().unwrap() > at || slow, "{told}");
        assert!(
            !slow || steps(&run).ends_with(&[at]),
            "a trainer that is given up writes nothing more: {told}"
        );
    }
}
