//! The QEMU Machine Protocol, as far as goldsmith speaks it.
//!
//! Source: QEMU's `docs/interop/qmp-spec.rst`. QEMU connects to a socket that we listen on, so there is nothing to poll
//! for: its greeting is the sign that it is up. Fields that we don't know are ignored and events that we don't know are
//! passed on, because we talk to QEMU from 7.2 to today's.

use std::collections::HashMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::{mpsc, oneshot};

/// Longest line that QEMU may send. Its longest answer, the schema, has about 200 kB.
const MAX_LINE: u64 = 4 * 1024 * 1024;
/// No command that goldsmith sends takes QEMU this long to acknowledge.
const ANSWER_DEADLINE: Duration = Duration::from_secs(60);

/// Why a command had no result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The connection ended.
    #[error("QEMU closed its control connection")]
    Closed,
    /// QEMU did not answer.
    #[error("QEMU did not answer `{command}` within {} s", ANSWER_DEADLINE.as_secs())]
    Silent {
        /// The command.
        command: String,
    },
    /// QEMU refused the command.
    #[error("QEMU refused `{command}`: {reason}")]
    Refused {
        /// The command.
        command: String,
        /// QEMU's words.
        reason: String,
    },
    /// What came is no QMP.
    #[error("QEMU's control connection speaks no QMP: {0}")]
    Protocol(String),
}

/// QEMU's version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Version {
    /// First number.
    pub major: u32,
    /// Second number.
    pub minor: u32,
    /// Third number.
    pub micro: u32,
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.micro)
    }
}

/// Something that happened in QEMU.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its name, such as `SHUTDOWN`.
    pub name: String,
    /// What there is to know.
    pub data: Value,
}

/// A connection to one QEMU.
#[derive(Debug, Clone)]
pub struct Qmp {
    commands: mpsc::Sender<Command>,
    version: Version,
}

#[derive(Debug)]
struct Command {
    name: String,
    arguments: Value,
    answer: oneshot::Sender<Result<Value, Error>>,
}

impl Qmp {
    /// Takes a fresh connection, waits for the greeting and enters command mode. Events come out of the receiver, which
    /// ends with the connection.
    pub async fn negotiate<S>(stream: S) -> Result<(Self, mpsc::UnboundedReceiver<Event>), Error>
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (reader, writer) = tokio::io::split(stream);
        let mut reader = Lines(BufReader::new(reader));
        let greeting = reader.next().await?;
        let version = greeting.pointer("/QMP/version/qemu").cloned().unwrap_or_default();
        let version =
            serde_json::from_value(version).map_err(|error| Error::Protocol(format!("no greeting: {error}")))?;
        let (commands, inbox) = mpsc::channel(8);
        let (events, outbox) = mpsc::unbounded_channel();
        tokio::spawn(Driver { writer, inbox, events, pending: HashMap::new(), next_id: 0 }.drive(reader));
        let qmp = Self { commands, version };
        qmp.execute("qmp_capabilities", json!({})).await?;
        Ok((qmp, outbox))
    }

    /// QEMU's version, from its greeting.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Sends a command and waits for its result.
    pub async fn execute(&self, name: &str, arguments: Value) -> Result<Value, Error> {
        let (answer, result) = oneshot::channel();
        let command = Command { name: name.to_owned(), arguments, answer };
        self.commands.send(command).await.map_err(|_| Error::Closed)?;
        match tokio::time::timeout(ANSWER_DEADLINE, result).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(Error::Closed),
            Err(_) => Err(Error::Silent { command: name.to_owned() }),
        }
    }
}

struct Lines<R>(BufReader<R>);

impl<R: AsyncRead + Unpin> Lines<R> {
    async fn next(&mut self) -> Result<Value, Error> {
        let mut line = Vec::new();
        let read = (&mut self.0).take(MAX_LINE).read_until(b'\n', &mut line).await;
        match read {
            Ok(0) | Err(_) => Err(Error::Closed),
            Ok(_) if line.last() != Some(&b'\n') => Err(Error::Protocol("a line is too long or cut off".to_owned())),
            Ok(_) => serde_json::from_slice(&line).map_err(|error| Error::Protocol(error.to_string())),
        }
    }
}

/// Owns the connection: one task writes commands, matches answers to them and hands out events.
struct Driver<W> {
    writer: W,
    inbox: mpsc::Receiver<Command>,
    events: mpsc::UnboundedSender<Event>,
    pending: HashMap<u64, (String, oneshot::Sender<Result<Value, Error>>)>,
    next_id: u64,
}

impl<W: AsyncWrite + Unpin> Driver<W> {
    async fn drive<R: AsyncRead + Unpin + Send + 'static>(mut self, mut reader: Lines<R>) {
        // Reading a line must not be interrupted half-way, so it has a task of its own.
        let (lines, mut incoming) = mpsc::channel(64);
        tokio::spawn(async move {
            loop {
                let line = reader.next().await;
                let is_last = line.is_err();
                if lines.send(line).await.is_err() || is_last {
                    return;
                }
            }
        });
        loop {
            tokio::select! {
                command = self.inbox.recv() => {
                    let Some(command) = command else { return };
                    if !self.send(command).await {
                        return;
                    }
                }
                line = incoming.recv() => match line {
                    Some(Ok(message)) => self.receive(message),
                    // Dropping what is pending tells everybody who waits that the connection is closed.
                    Some(Err(_)) | None => return,
                },
            }
        }
    }

    async fn send(&mut self, command: Command) -> bool {
        let id = self.next_id;
        self.next_id += 1;
        let message = json!({ "execute": command.name, "arguments": command.arguments, "id": id });
        tracing::trace!(%message, "to QEMU");
        self.pending.insert(id, (command.name, command.answer));
        let line = format!("{message}\n");
        self.writer.write_all(line.as_bytes()).await.is_ok()
    }

    fn receive(&mut self, message: Value) {
        tracing::trace!(%message, "from QEMU");
        let Value::Object(mut message) = message else { return };
        if let Some(Value::String(name)) = message.remove("event") {
            let data = message.remove("data").unwrap_or(Value::Object(Map::new()));
            // Nobody listens any more when the machine is being given up.
            let _unheard = self.events.send(Event { name, data });
            return;
        }
        let id = message.get("id").and_then(Value::as_u64);
        let Some((command, answer)) = id.and_then(|id| self.pending.remove(&id)) else { return };
        let result = match (message.remove("return"), message.get("error")) {
            (Some(value), _) => Ok(value),
            (None, error) => {
                let reason = error.and_then(|error| error.get("desc")).and_then(Value::as_str);
                Err(Error::Refused { command, reason: reason.unwrap_or("no reason was given").to_owned() })
            }
        };
        // Who asked may have stopped waiting.
        let _unheard = answer.send(result);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) const GREETING: &str = r#"{"QMP": {"version": {"qemu": {"micro": 2, "minor": 0, "major": 10}, "package": "x"}, "capabilities": ["oob"]}}"#;

    /// A peer that greets, then answers each line by a function; `None` hangs up.
    pub(in super::super) fn peer(
        greeting: &str,
        answer: impl Fn(u64, &str) -> Option<String> + Send + 'static,
    ) -> tokio::io::DuplexStream {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let greeting = format!("{greeting}\r\n");
        tokio::spawn(async move {
            let (reader, mut writer) = tokio::io::split(theirs);
            writer.write_all(greeting.as_bytes()).await.unwrap();
            let mut lines = BufReader::new(reader).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let command: Value = serde_json::from_str(&line).unwrap();
                let id = command["id"].as_u64().unwrap();
                let Some(answer) = answer(id, command["execute"].as_str().unwrap()) else { return };
                writer.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        ours
    }

    fn done(id: u64) -> String {
        format!("{{\"return\": {{}}, \"id\": {id}}}\r\n")
    }

    #[tokio::test]
    async fn answers_find_their_commands_and_events_pass() {
        let stream = peer(GREETING, |id, command| {
            let refusal = r#"{"error": {"class": "GenericError", "desc": "Device 'x' not found"}, "id": "#;
            Some(match command {
                "device_del" => format!("{refusal}{id}}}\r\n"),
                "stop" => format!("{{\"event\": \"STOP\", \"timestamp\": {{}}, \"new\": 1}}\r\n{}", done(id)),
                _ => done(id),
            })
        });
        let (qmp, mut events) = Qmp::negotiate(stream).await.unwrap();
        assert_eq!(qmp.version().to_string(), "10.0.2");
        qmp.execute("stop", json!({})).await.unwrap();
        assert_eq!(events.recv().await.unwrap().name, "STOP");
        let error = qmp.execute("device_del", json!({ "id": "x" })).await.unwrap_err();
        insta::assert_snapshot!(error, @"QEMU refused `device_del`: Device 'x' not found");
    }

    #[tokio::test]
    async fn a_command_ends_when_qemu_does() {
        let stream = peer(GREETING, |id, command| (command == "qmp_capabilities").then(|| done(id)));
        let (qmp, mut events) = Qmp::negotiate(stream).await.unwrap();
        assert!(matches!(qmp.execute("quit", json!({})).await, Err(Error::Closed)));
        assert_eq!(events.recv().await, None);
        assert!(matches!(qmp.execute("quit", json!({})).await, Err(Error::Closed)));
    }

    #[tokio::test]
    async fn what_is_no_qmp_is_refused() {
        for greeting in ["SSH-2.0-OpenSSH", "{}", "[1]"] {
            let error = Qmp::negotiate(peer(greeting, |_, _| None)).await.unwrap_err();
            assert!(matches!(error, Error::Protocol(_)), "{greeting}: {error}");
        }
    }
}
