//! The mirror on Google's and Azure's stores, as their test servers speak.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};

use crate::ground::{Daemon, Ground};
use crate::mirror::{lose, mirror_of, success, train};
use crate::servers::{ACCOUNT, ACCOUNT_KEY, Server};

const STEPS: &str = "optim.total_steps=300";

/// A door to fake-gcs-server, which takes an object by Google's XML interface only if its address is signed, and answers without the ETag that Google
/// gives. It knows neither conditions nor uploads in parts there, so that these are not tested on it.
fn door_to(store: &Server) -> String {
    fn head_of(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
        let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
        loop {
            if let Some(end) = text.windows(4).position(|w| w == b"\r\n\r\n") {
                let rest = text.split_off(end + 2);
                return Some((String::from_utf8(text).ok()?, rest));
            }
            match stream.read(&mut buffer) {
                Ok(n) if n > 0 => text.extend_from_slice(&buffer[..n]),
                _ => return None,
            }
        }
    }
    fn carry(mut client: TcpStream, address: &str) -> Option<()> {
        let (head, rest) = head_of(&mut client)?;
        // It looks at the host, too.
        let head = head.replace(&client.local_addr().ok()?.to_string(), address);
        let (line, headers) = head.split_once("\r\n")?;
        let puts = line.starts_with("PUT ");
        let line = if puts {
            // It also takes the name of a new object as it is written, and `object_store` escapes more than it must.
            let plain = line.replace("%2F", "/").replace("%2E", ".").replace("%2D", "-");
            plain.replace(" HTTP/", "?X-Goog-Algorithm=none HTTP/")
        } else {
            line.to_owned()
        };
        let mut store = TcpStream::connect(address).ok()?;
        write!(store, "{line}\r\nConnection: close\r\n{headers}").ok()?;
        store.write_all(&rest).ok()?;
        let (mut from, mut to) = (client.try_clone().ok()?, store.try_clone().ok()?);
        std::thread::spawn(move || std::io::copy(&mut from, &mut to));
        let (head, rest) = head_of(&mut store)?;
        let etag = if puts { "ETag: \"of the door\"\r\n" } else { "" };
        write!(client, "{head}{etag}").ok()?;
        client.write_all(&rest).ok()?;
        std::io::copy(&mut store, &mut client).ok()?;
        client.shutdown(Shutdown::Both).ok()
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let door = format!("http://{}", listener.local_addr().unwrap());
    let address = store.endpoint.trim_start_matches("http://").to_owned();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let address = address.clone();
            std::thread::spawn(move || carry(client, &address));
        }
    });
    door
}

/// The machine is lost once, and the run ends as the undisturbed one.
fn outlives_its_machine(ground: &Ground, run: &str, address: &str, endpoint: &str, environment: &[(&str, &str)]) {
    let sets = [
        format!("checkpoint.mirror=\"{address}\""),
        format!("checkpoint.mirror_endpoint=\"{endpoint}\""),
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
    // A key that asks nobody for a token, as `object_store` documents it for this server.
    let key = r#"{"disable_oauth": true, "client_email": "", "private_key": "", "private_key_id": ""}"#;
    let environment = [("GOOGLE_SERVICE_ACCOUNT_KEY", key)];
    outlives_its_machine(&ground, "gs", "gs://runs/x", &door_to(&server), &environment);

    let state = ground.path("azurite");
    std::fs::create_dir_all(&state).unwrap();
    let server = Server::azure(&state);
    server.make_container("runs");
    let environment = [("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT), ("AZURE_STORAGE_ACCOUNT_KEY", ACCOUNT_KEY)];
    outlives_its_machine(&ground, "az", "az://runs/x", &server.endpoint, &environment);
}
