use super::*;

struct Ground {
    dir: tempfile::TempDir,
    prefix: Arc<Prefix>,
    status: SharedMirrorStatus,
    gauge: Gauge,
}

impl Ground {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let prefix = Prefix::open(&dir.path().join("mirror").display().to_string(), "", "test-io").unwrap();
        Self {
            prefix: Arc::new(prefix),
            dir,
            status: SharedMirrorStatus::default(),
            gauge: Gauge::new("held", "Held.").unwrap(),
        }
    }

    fn holder(&self, run_dir: &str) -> Holder {
        let folder = self.dir.path().join(run_dir);
        std::fs::create_dir_all(&folder).unwrap();
        Holder::of_process("x", &folder, Duration::from_secs(1))
    }

    fn take(&self, me: Holder) -> Result<Lease, NotTaken> {
        take(&self.prefix, me, &Flow::default(), &self.status, &self.gauge)
    }
}

#[test]
fn a_second_machine_is_refused_while_the_first_lives_and_is_told_who_it_is() {
    let ground = Ground::new();
    let first = ground.take(ground.holder("a")).unwrap();
    assert_eq!(ground.gauge.get(), 1.0);
    let Err(NotTaken::Held(holder)) = ground.take(ground.holder("b")) else {
        panic!("two hold it")
    };
    assert_eq!(holder.pid, std::process::id());
    assert!(holder.to_string().contains("/a), renewed at"), "{holder}");
    first.check().unwrap();
    first.release();
    assert_eq!(ground.gauge.get(), 0.0);
    let began = Instant::now();
    ground.take(ground.holder("b")).unwrap().release();
    assert!(began.elapsed() < Duration::from_millis(900), "it was given back");
}

#[test]
fn the_lease_of_a_dead_machine_ends_by_its_time_out_and_its_own_folder_need_not_wait() {
    let ground = Ground::new();
    // Dead: nobody renews it.
    ground.prefix.put(LEASE_FILE, ground.holder("a").text()).unwrap();
    let began = Instant::now();
    let again = ground.take(ground.holder("a")).unwrap();
    assert!(began.elapsed() < Duration::from_millis(900), "the same folder on the same machine");
    again.release();
    let mut elsewhere = ground.holder("a");
    elsewhere.host = "elsewhere".into();
    ground.prefix.put(LEASE_FILE, elsewhere.text()).unwrap();
    let began = Instant::now();
    ground.take(ground.holder("a")).unwrap().release();
    assert!(began.elapsed() >= Duration::from_secs(1), "its time-out was waited for");
}

#[test]
fn a_lease_that_another_has_taken_is_lost_for_good() {
    let ground = Ground::new();
    let mine = ground.take(ground.holder("a")).unwrap();
    let mut other = ground.holder("b");
    other.host = "elsewhere".into();
    ground.prefix.put(LEASE_FILE, other.text()).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    let lost = loop {
        match mine.check() {
            Err(lost) => break lost,
            Ok(()) => assert!(Instant::now() < deadline, "nobody noticed"),
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(lost.bars && lost.text.contains("taken by host \"elsewhere\""), "{lost}");
    mine.release();
    assert!(ground.prefix.get(LEASE_FILE).unwrap().is_some(), "the other's stands");
}
