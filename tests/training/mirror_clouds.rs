//! The mirror on Google's and Azure's stores, as their own test servers speak.

use crate::ground::{Daemon, Ground};
use crate::mirror::{lose, mirror_of, success, train};
use crate::servers::{ACCOUNT, ACCOUNT_KEY, Server};

const STEPS: &str = "optim.total_steps=450";

/// The machine is lost once, and the run ends as the undisturbed one.
fn outlives_its_machine(ground: &Ground, run: &str, address: &str, server: &Server, environment: &[(&str, &str)]) {
    let sets = [
        format!("checkpoint.mirror=\"{address}\""),
        format!("checkpoint.mirror_endpoint=\"{}\"", server.endpoint),
    ];
    let start = || {
        let mut command = train(ground, run, &[STEPS, &sets[0], &sets[1]]);
        command.envs(environment.iter().copied());
        command
    };
    let mut daemon = Daemon::start(start(), &ground.path("log"));
    daemon.until("the mirror has enough", |d| {
        mirror_of(d)["step"].as_u64().is_some_and(|step| step >= 60)
    });
    lose(daemon, &ground.path(run));
    let text = success(start());
    assert!(text.contains(&format!("of the mirror {address}")), "{text}");
    assert_eq!(ground.trace(run), ground.trace("clean"), "{address}");
}

#[test]
fn a_lost_run_goes_on_from_google_and_from_azure() {
    let ground = Ground::new();
    success(train(&ground, "clean", &[STEPS]));
    let root = ground.path("buckets");
    std::fs::create_dir_all(root.join("runs")).unwrap();
    let server = Server::gcs(&root);
    outlives_its_machine(&ground, "gs", "gs://runs/x", &server, &[("GOOGLE_SKIP_SIGNATURE", "true")]);

    let state = ground.path("azurite");
    std::fs::create_dir_all(&state).unwrap();
    let server = Server::azure(&state);
    server.make_container("runs");
    let environment = [("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT), ("AZURE_STORAGE_ACCOUNT_KEY", ACCOUNT_KEY)];
    outlives_its_machine(&ground, "az", "az://runs/x", &server, &environment);
}
