//! `doctor` through a real nginx with TLS and a private authority: well as the runbooks configure it, and held back where they are
//! not followed. Says SKIPPED where nginx or openssl is not installed.
//! Owns: the proof that what the doctor asks for is what a proxy needs. Never: trusts a proxy of its own for that.

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/http.rs"]
mod http;
#[path = "support/port.rs"]
mod port;
#[path = "support/skip.rs"]
mod skip;

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use daemon::{Home, Place, eventually};
use port::Port;
use serde_json::Value;
use skip::skip;

/// What the runbooks ask for.
const AS_IT_SHOULD_BE: &str = "proxy_buffering off; proxy_request_buffering off; proxy_cache off;";
/// The daemon's own `X-Accel-Buffering: no` would turn the buffer off again, so a careless setup has to ignore it.
const CARELESS: &str = "proxy_buffering on; proxy_ignore_headers X-Accel-Buffering;";
/// A line that is often pasted for browsers.
const WILD: &str = "proxy_buffering off; add_header Access-Control-Allow-Origin * always;";

struct Nginx {
    child: Child,
    url: String,
    _port: Port,
}

impl Nginx {
    fn start(place: &Place, name: &str, daemon: SocketAddr, location: &str) -> Self {
        let port = Port::reserve();
        let address = port.address();
        let directory = place.join(name);
        fs::create_dir_all(&directory).expect("a directory");
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|name| format!("{name}_temp_path t;"));
        let configuration = format!(
            "daemon off; master_process off; pid pid; error_log stderr crit; events {{}}\n\
             http {{ access_log off; {}\n\
             server {{ listen {address} ssl; ssl_certificate {cert}; ssl_certificate_key {key};\n\
             location / {{ proxy_pass http://{daemon}; proxy_http_version 1.1; proxy_set_header Connection \"\";\n\
             proxy_set_header Authorization $http_authorization; proxy_set_header Host $host;\n\
             proxy_read_timeout 1h; {location} }} }} }}\n",
            temporary.concat(),
            cert = place.join("cert.pem").display(),
            key = place.join("key.pem").display(),
        );
        fs::write(directory.join("nginx.conf"), configuration).expect("a file");
        let child = Command::new("nginx")
            .args(["-e", "stderr", "-c", "nginx.conf", "-p"])
            .arg(&directory)
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx");
        let mut nginx = Self { child, url: format!("https://localhost:{}", address.port()), _port: port };
        eventually("nginx", || {
            assert!(nginx.child.try_wait().expect("a child").is_none(), "nginx did not start");
            TcpStream::connect(address).ok()
        });
        nginx
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn is_installed(program: &str, argument: &str) -> bool {
    Command::new(program).arg(argument).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

fn certificate(place: &Place) -> PathBuf {
    let (cert, key) = (place.join("cert.pem"), place.join("key.pem"));
    let status = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"])
        // A server shows it itself, and an authority's own certificate is no server's.
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-out"])
        .arg(&cert)
        .arg("-keyout")
        .arg(&key)
        .stderr(Stdio::null())
        .status();
    assert!(status.expect("openssl").success());
    cert
}

fn doctor(url: &str, home: &Home, ca: Option<&Path>, args: &[&str]) -> (i32, Value, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kheish-daemon"));
    command.env_clear().args(["--base-url", url, "--output", "json", "--token-file"]).arg(home.token_file());
    if let Some(ca) = ca {
        command.arg("--ca-file").arg(ca);
    }
    let output = command.arg("doctor").args(args).stdin(Stdio::null()).output().expect("it runs");
    (
        output.status.code().expect("an exit code"),
        serde_json::from_slice(&output.stdout).unwrap_or_default(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

fn errors(report: &Value) -> Vec<&str> {
    let errors = report["checks"].as_array().expect("checks").iter().filter(|check| check["severity"] == "error");
    let mut codes: Vec<&str> = errors.map(|check| check["code"].as_str().expect("a code")).collect();
    codes.dedup();
    codes
}

#[test]
fn nginx_passes_as_the_runbooks_configure_it_and_is_named_where_it_does_not() {
    if !is_installed("nginx", "-v") || !is_installed("openssl", "version") {
        return skip("nginx_passes_as_the_runbooks_configure_it", "nginx or openssl is not installed");
    }
    let place = Place::new("doctor-nginx");
    let ca = certificate(&place);
    let home = Home::new("doctor-nginx", None);
    let daemon = home.start();

    let good = Nginx::start(&place, "good", daemon.address, AS_IT_SHOULD_BE);
    for args in [&[][..], &["--cors-origin", "https://kheish.example.com"], &["--cors-origin", "http://localhost:5173"]]
    {
        let (code, report, stderr) = doctor(&good.url, &home, Some(&ca), args);
        assert_eq!((code, errors(&report)), (0, vec![]), "{args:?}: {stderr}");
    }
    // Without the private authority nothing of it is believed.
    let (code, _, stderr) = doctor(&good.url, &home, None, &[]);
    assert_eq!(code, 3, "{stderr}");

    let careless = Nginx::start(&place, "careless", daemon.address, CARELESS);
    let (code, report, stderr) = doctor(&careless.url, &home, Some(&ca), &[]);
    assert_eq!((code, errors(&report)), (1, vec!["events_sse_buffered"]), "{stderr}");
    assert!(stderr.contains("proxy_buffering off"), "{stderr}");

    let wild = Nginx::start(&place, "wild", daemon.address, WILD);
    let (code, report, stderr) = doctor(&wild.url, &home, Some(&ca), &[]);
    assert_eq!((code, errors(&report)), (1, vec!["cors_header_added", "cors_origin_granted"]), "{stderr}");
    daemon.stop();
}
