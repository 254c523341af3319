//! The scripted provider by itself: what it says it listens on, what it records, how it stops, how it copes.

mod net_raw_server;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};
use kheish_daemon::net::{ApiClient, BaseUrl, EgressPolicy, Net, NetConfig};
use kheish_daemon::scripted::{Script, ScriptedError, ScriptedServer, run};
use net_raw_server::wait_for_close;
use serde_json::{Value, json};

/// Only a hang takes as long.
const PATIENCE: Duration = Duration::from_secs(60);

fn start(script: &str) -> ScriptedServer {
    let script = Script::parse(script, Path::new("test.toml")).expect("valid script");
    ScriptedServer::start("127.0.0.1:0".parse().expect("address"), script).expect("server")
}

fn client(address: SocketAddr) -> ApiClient {
    let config = NetConfig { ca_file: None, resolver_threads: 1, egress: EgressPolicy::command_line() };
    let net = Net::new(&config).expect("client");
    ApiClient::new(net, BaseUrl::parse(&format!("http://{address}")).expect("URL"), None)
}

fn ask(client: &ApiClient, input: &str) -> Value {
    let body = json!({"model": "m", "input": input}).to_string();
    let reply = client.post("/v1/responses", &[], body.as_bytes()).expect("reply");
    assert_eq!(reply.status, 200);
    serde_json::from_slice(&reply.body).expect("JSON")
}

#[test]
fn it_tells_its_address_in_one_json_line_and_ends_when_told() {
    let path = std::env::temp_dir().join(format!("kheish-script-{}.toml", std::process::id()));
    std::fs::write(&path, "[default]\ntext = 'scripted'\n").expect("scratch file");
    struct Line(Sender<Vec<u8>>);
    impl Write for Line {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.send(bytes.to_vec()).expect("test listens");
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let (line, lines) = bounded(16);
    let (stop, stopped) = bounded::<()>(16);
    let server = std::thread::spawn({
        let path = path.clone();
        move || {
            let bind = "127.0.0.1:0".parse().expect("address");
            run(bind, &path, &mut Line(line), || assert!(stopped.recv().is_err())).expect("clean stop");
        }
    });
    let mut ready = Vec::new();
    while !ready.ends_with(b"\n") {
        ready.extend(lines.recv_timeout(PATIENCE).expect("ready line"));
    }
    let ready: Value = serde_json::from_slice(&ready).expect("one JSON line");
    let address: SocketAddr = ready["address"].as_str().expect("address").parse().expect("address");
    assert_eq!(ready["base_url"], format!("http://{address}/v1"));
    let answer = ask(&client(address), "hi");
    assert_eq!(answer["output"][0]["content"][0]["text"], "scripted");
    drop(stop);
    server.join().expect("server");
    assert!(TcpStream::connect(address).is_err(), "still listening");
    std::fs::remove_file(&path).expect("scratch file is ours");
}

#[test]
fn it_listens_on_loopback_only() {
    let outcome = ScriptedServer::start("0.0.0.0:0".parse().expect("address"), Script::echo());
    assert!(matches!(outcome.map(|_| ()), Err(ScriptedError::NotLoopback(_))));
    let taken = start("");
    let outcome = ScriptedServer::start(taken.local_addr(), Script::echo()).map(|_| ());
    assert!(matches!(outcome, Err(ScriptedError::Bind { .. })));
}

#[test]
fn it_echoes_the_last_user_input_and_lists_what_it_was_asked() {
    let server = start("[[turn]]\nmatch = 'capital'\ntext = 'Paris'\n");
    let client = client(server.local_addr());
    let input = json!([
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": [{"type": "output_text", "text": "answer"}]},
        {"role": "user", "content": [{"type": "input_text", "text": "second"}]},
        {"type": "function_call_output", "call_id": "c", "output": "not this"},
    ]);
    let body = json!({"model": "m", "input": input}).to_string();
    let headers = [("authorization", "Bearer list-secret")];
    let reply = client.post("/v1/responses", &headers, body.as_bytes()).expect("reply");
    let answer: Value = serde_json::from_slice(&reply.body).expect("JSON");
    assert_eq!(answer["output"][0]["content"][0]["text"], "second");
    assert_eq!(ask(&client, "the capital?")["output"][0]["content"][0]["text"], "Paris");

    let list = client.get("/_scripted/requests").expect("list").body;
    assert!(!String::from_utf8_lossy(&list).contains("list-secret"));
    let list: Value = serde_json::from_slice(&list).expect("JSON");
    assert_eq!((&list["count"], list["requests"].as_array().map(Vec::len)), (&json!(2), Some(2)));
    assert_eq!(list["requests"][0]["body"]["input"], input);
    let turns = [&list["requests"][0]["turn"], &list["requests"][1]["turn"]];
    assert_eq!(turns, [&Value::Null, &json!(1)]);
}

#[test]
fn a_bad_request_is_answered_and_the_server_goes_on() {
    let server = start("");
    let status = |request: &[u8]| {
        let mut stream = TcpStream::connect(server.local_addr()).expect("connected");
        stream.write_all(request).expect("written");
        let mut answer = [0u8; 12];
        stream.read_exact(&mut answer).expect("status line");
        String::from_utf8_lossy(&answer[9..]).into_owned()
    };
    let cases: [(&[u8], &str); 7] = [
        (b"\x00\x01\r\n\r\n", "400"),
        (b"POST /v1/responses HTTP/1.1\r\nContent-Length: x\r\n\r\n", "400"),
        (b"POST /v1/responses HTTP/1.1\r\nContent-Length: 2\r\n\r\nno", "400"),
        (b"POST /v1/responses HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", "411"),
        (b"POST /v1/responses HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n", "413"),
        (b"GET /elsewhere HTTP/1.1\r\n\r\n", "404"),
        (b"GET /v1/models HTTP/1.1\r\n\r\n", "200"),
    ];
    for (request, expected) in cases {
        assert_eq!(status(request), expected, "{}", String::from_utf8_lossy(request));
    }
    let mut long = b"GET /".to_vec();
    long.resize(33 * 1024, b'x');
    assert_eq!(status(&long), "431");
}

#[test]
fn one_connection_carries_many_requests() {
    let server = start("");
    let mut stream = TcpStream::connect(server.local_addr()).expect("connected");
    let body = json!({"input": "hi"}).to_string();
    let request = format!("POST /v1/responses HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    // The second one waits in the same segment as the first one's end.
    stream.write_all(format!("{request}{request}").as_bytes()).expect("written");
    let mut seen = String::new();
    let mut buffer = [0u8; 4096];
    while seen.matches("\"text\":\"hi\"").count() < 2 {
        let count = stream.read(&mut buffer).expect("answer");
        assert!(count > 0, "closed after {seen}");
        seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
}

#[test]
fn many_clients_at_once_are_all_answered() {
    // More clients than threads, so that kept connections have to make room.
    let server = start("[default]\ntext = 'ok'\n");
    let address = server.local_addr();
    std::thread::scope(|scope| {
        for _ in 0..96 {
            scope.spawn(|| {
                let client = client(address);
                for _ in 0..20 {
                    assert_eq!(ask(&client, "hi")["output"][0]["content"][0]["text"], "ok");
                }
            });
        }
    });
    let list: Value = serde_json::from_slice(&server.requests_json()).expect("JSON");
    assert_eq!((&list["count"], list["requests"].as_array().map(Vec::len)), (&json!(1_920), Some(1_000)));
}

#[test]
fn stopping_ends_connections_that_wait_hang_or_are_idle() {
    let server = start(
        "[[turn]]\nmatch = 'hang'\nfault = {kind = 'hang'}\n[[turn]]\nmatch = 'slow'\ntext = 'x'\ndelay_ms = 600000\n",
    );
    let connect = |input: &str| {
        let mut stream = TcpStream::connect(server.local_addr()).expect("connected");
        let body = json!({"stream": true, "input": input}).to_string();
        write!(stream, "POST /v1/responses HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len()).expect("written");
        stream
    };
    let mut hanging = connect("hang");
    let mut head = [0u8; 15];
    hanging.read_exact(&mut head).expect("the hanging answer has begun");
    let slow = connect("slow");
    let idle = TcpStream::connect(server.local_addr()).expect("connected");
    let (done, stopped) = bounded(16);
    let stopper = std::thread::spawn(move || {
        server.stop();
        done.send(()).expect("test listens");
    });
    stopped.recv_timeout(PATIENCE).expect("stopped");
    stopper.join().expect("stopper");
    for mut stream in [hanging, slow, idle] {
        wait_for_close(&mut stream);
    }
}
