//! The agent's side of the conversation.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use goldsmith_agent::frame::Decoder;
use goldsmith_agent::message::{self, Hello, Op, OpError, OpErrorKind, Reply, ToGuest, ToHost};
use goldsmith_agent::{PROTOCOL_VERSION, message::Stream};

use crate::op;
use crate::op::exec::Event;
use crate::op::terminal::Typed;

/// How often the agent greets while nobody answers.
const GREETING_INTERVAL: Duration = Duration::from_millis(500);
/// The kernel answers a read with nothing while no host is connected.
const UNCONNECTED_PAUSE: Duration = Duration::from_millis(20);

/// A program is told to end, and killed two seconds later.
const CANCEL_DEADLINE: Duration = Duration::from_secs(5);

/// What all threads of the agent share: the port to write to, the session, the programs that run.
#[derive(Clone)]
pub(crate) struct Shared(Arc<Inner>);

struct Inner {
    port: Mutex<File>,
    session: Mutex<u64>,
    programs: Mutex<Programs>,
    terminals: Mutex<HashMap<u32, Sender<Typed>>>,
    boot_id: String,
}

/// The programs that run.
#[derive(Default)]
struct Programs {
    running: HashMap<u32, Sender<Event>>,
    /// Nobody will ask for their results any more.
    is_closed: bool,
}

impl Programs {
    /// Has all end.
    fn cancel_all(&self) {
        for events in self.running.values() {
            drop(events.send(Event::Cancel));
        }
    }
}

/// A thread that panicked while it held a lock leaves no half-done state behind any of these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Sends a message. A message that can't be encoded is a bug of the sender and is replaced by an error reply, so
    /// that the host does not wait for ever.
    pub(crate) fn send(&self, message: &ToHost) -> io::Result<()> {
        let frame = match message::encode(message) {
            Ok(frame) => frame,
            Err(error) => {
                let ToHost::Reply { id, .. } = message else { return Err(io::Error::other(error.to_string())) };
                let error = OpError { kind: OpErrorKind::Other, message: error.to_string() };
                message::encode(&ToHost::Reply { id: *id, result: Err(error) })
                    .map_err(|error| io::Error::other(error.to_string()))?
            }
        };
        lock(&self.0.port).write_all(&frame)
    }

    /// Sends bytes that a program wrote.
    pub(crate) fn output(&self, id: u32, stream: Stream, data: &[u8]) -> io::Result<()> {
        self.send(&ToHost::Output { id, stream, data: data.to_vec() })
    }

    /// Remembers a running program, so that it can be cancelled.
    pub(crate) fn register(&self, id: u32, events: Sender<Event>) {
        let mut programs = lock(&self.0.programs);
        if programs.is_closed {
            // Its own supervisor listens, and is there until the program has ended.
            drop(events.send(Event::Cancel));
        }
        programs.running.insert(id, events);
    }

    /// Forgets a program that has ended.
    pub(crate) fn unregister(&self, id: u32) {
        lock(&self.0.programs).running.remove(&id);
    }

    /// Remembers a terminal, so that somebody can type on it, also before its program has started.
    fn register_terminal(&self, id: u32) -> Receiver<Typed> {
        let (typed, keys) = mpsc::channel();
        lock(&self.0.terminals).insert(id, typed);
        keys
    }

    /// Forgets a terminal whose program has ended.
    fn unregister_terminal(&self, id: u32) {
        lock(&self.0.terminals).remove(&id);
    }

    fn typed(&self, id: u32, typed: Typed) {
        if let Some(terminal) = lock(&self.0.terminals).get(&id) {
            // What is typed after the program's end is for nobody.
            drop(terminal.send(typed));
        }
    }

    fn cancel(&self, id: u32) {
        if let Some(events) = lock(&self.0.programs).running.get(&id) {
            // A program that has just ended no longer listens, which is as good as being cancelled.
            drop(events.send(Event::Cancel));
        }
    }

    fn attach(&self, session: u64) {
        *lock(&self.0.session) = session;
        // Programs of the session before belong to a host that is gone.
        lock(&self.0.programs).cancel_all();
    }

    /// Ends all programs, also those that are about to start, and waits until they have.
    fn close(&self) {
        let mut programs = lock(&self.0.programs);
        programs.is_closed = true;
        programs.cancel_all();
        drop(programs);
        let deadline = Instant::now() + CANCEL_DEADLINE;
        while !lock(&self.0.programs).running.is_empty() && Instant::now() < deadline {
            std::thread::sleep(UNCONNECTED_PAUSE);
        }
    }

    fn greet(&self) -> io::Result<()> {
        self.send(&ToHost::Hello(Hello {
            protocol: PROTOCOL_VERSION,
            session: *lock(&self.0.session),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            boot_id: self.0.boot_id.clone(),
        }))
    }
}

/// What it means that nobody is at the port's other end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Silence {
    /// A host may connect again.
    Lasts,
    /// The host is gone for good.
    Ends,
}

/// Talks over the port until it fails, or until the host is gone for good. With such a host go all programs that run for
/// it, however the connection ended.
pub(crate) fn serve(port: File, silence: Silence) -> io::Result<()> {
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim_end().to_owned();
    let reader = port.try_clone()?;
    let shared = Shared(Arc::new(Inner {
        port: Mutex::new(port),
        session: Mutex::new(0),
        programs: Mutex::default(),
        terminals: Mutex::new(HashMap::new()),
        boot_id,
    }));
    let greeter = shared.clone();
    std::thread::spawn(move || {
        while *lock(&greeter.0.session) == 0 && greeter.greet().is_ok() {
            std::thread::sleep(GREETING_INTERVAL);
        }
    });
    let heard = listen(reader, &shared, silence);
    if silence == Silence::Ends {
        shared.close();
    }
    heard
}

fn listen(mut reader: File, shared: &Shared, silence: Silence) -> io::Result<()> {
    let mut decoder = Decoder::default();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) if silence == Silence::Ends => return Ok(()),
            Ok(0) => std::thread::sleep(UNCONNECTED_PAUSE),
            Ok(n) => decoder.extend(&buffer[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        while let Some(payload) = decoder.next_frame() {
            if let Ok(message) = message::decode(&payload) {
                receive(shared, message)?;
            }
        }
    }
}

fn receive(shared: &Shared, message: ToGuest) -> io::Result<()> {
    match message {
        ToGuest::Attach { session } => {
            shared.attach(session);
            shared.greet()
        }
        ToGuest::Cancel { id } => {
            shared.cancel(id);
            Ok(())
        }
        ToGuest::Keys { id, data } => {
            shared.typed(id, Typed::Keys(data));
            Ok(())
        }
        ToGuest::Resize { id, size } => {
            shared.typed(id, Typed::Resize(size));
            Ok(())
        }
        ToGuest::Request { id, op: Op::Terminal { exec, size } } => {
            let worker = shared.clone();
            let keys = shared.register_terminal(id);
            std::thread::spawn(move || {
                let result = op::terminal::run(&worker, id, exec, size, keys).map(Reply::Exited);
                worker.unregister_terminal(id);
                // As below.
                drop(worker.send(&ToHost::Reply { id, result }));
            });
            Ok(())
        }
        ToGuest::Request { id, op } => {
            let worker = shared.clone();
            std::thread::spawn(move || {
                let result = perform(&worker, id, op);
                // Without a port there is nobody to tell; the reader ends the agent.
                drop(worker.send(&ToHost::Reply { id, result }));
            });
            Ok(())
        }
    }
}

fn perform(shared: &Shared, id: u32, op: Op) -> Result<Reply, OpError> {
    match op {
        Op::Exec(exec) => op::exec::run(shared, id, exec).map(Reply::Exited),
        Op::Read { path, offset } => op::file::read(&path, offset).map(Reply::Data),
        Op::Write { path, data, how } => op::file::write(&path, &data, how).map(|()| Reply::Done),
        Op::List { path, after } => op::file::list(&path, after.as_deref()),
        Op::Stat { path, follow } => op::file::stat(&path, follow).map(Reply::Stat),
        Op::Digest { path, algorithm } => op::file::digest(&path, algorithm).map(Reply::Digest),
        Op::MakeFolder { path, mode } => op::file::make_folder(&path, mode).map(|()| Reply::Done),
        Op::Copy { from, to } => op::file::copy(&from, &to).map(|()| Reply::Done),
        Op::Remove { path } => op::file::remove(&path).map(|()| Reply::Done),
        Op::SetMode { path, mode } => op::file::set_mode(&path, mode).map(|()| Reply::Done),
        Op::SetOwner { path, owner, group } => {
            op::owner::set(&path, owner.as_deref(), group.as_deref()).map(|()| Reply::Done)
        }
        Op::Space { path } => op::file::space(&path).map(Reply::Space),
        Op::Sync => {
            rustix::fs::sync();
            Ok(Reply::Done)
        }
        // Somebody may type before its thread has begun, so it is begun elsewhere.
        Op::Terminal { .. } => Err(OpError { kind: OpErrorKind::Other, message: "a terminal without keys".to_owned() }),
        Op::Clear { patterns, how } => op::clear::clear(&patterns, how).map(|()| Reply::Done),
        Op::PowerOff => op::power::off().map(|()| Reply::Done),
        Op::Awake { unix_nanos, entropy } => op::awake::awake(unix_nanos, &entropy).map(|()| Reply::Done),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use goldsmith_agent::message::{Exec, Exit};

    use super::*;

    /// The processes in this group, by what the kernel lists.
    fn members(group: i32) -> usize {
        let stats = std::fs::read_dir("/proc").unwrap().flatten();
        let stats = stats.filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok());
        // After the name in parentheses: state, parent, group.
        let of_group = |stat: &String| {
            let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
            fields.first() != Some(&"Z") && fields.get(2).and_then(|group| group.parse().ok()) == Some(group)
        };
        stats.filter(of_group).count()
    }

    fn sh(script: &str) -> Exec {
        Exec {
            argv: ["sh", "-c", script].map(str::to_owned).into(),
            env: vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())],
            cwd: "/".to_owned(),
            timeout_ms: None,
        }
    }

    /// What a program writes, as a host hears it that does not listen for some seconds.
    fn heard_late(script: &str) -> String {
        let (host, port) = UnixStream::pair().unwrap();
        let port = File::from(OwnedFd::from(port));
        let server = std::thread::spawn(|| serve(port, Silence::Ends));
        (&host).write_all(&message::encode(&ToGuest::Attach { session: 1 }).unwrap()).unwrap();
        let request = ToGuest::Request { id: 1, op: Op::Exec(sh(script)) };
        (&host).write_all(&message::encode(&request).unwrap()).unwrap();
        std::thread::sleep(Duration::from_millis(3500));
        let (mut decoder, mut heard, mut buffer) = (Decoder::default(), Vec::new(), vec![0; 1 << 16]);
        let result = 'reply: loop {
            let n = (&host).read(&mut buffer).unwrap();
            assert!(n > 0, "the agent has gone");
            decoder.extend(&buffer[..n]);
            while let Some(frame) = decoder.next_frame() {
                match message::decode(&frame).unwrap() {
                    ToHost::Output { data, .. } => heard.extend(data),
                    ToHost::Reply { result, .. } => break 'reply result,
                    ToHost::Hello(_) => {}
                }
            }
        };
        assert_eq!(result, Ok(Reply::Exited(Exit::Code(0))));
        drop(host);
        drop(server.join().unwrap());
        String::from_utf8(heard).unwrap()
    }

    /// What a program has written is the host's, also if that does not listen until long after its end; what a daemon writes
    /// that it has left behind is nobody's, and does not keep the step from ending.
    #[test]
    fn a_host_that_listens_late_hears_all_of_a_program() {
        let numbers = |most: usize| (1..=most).map(|number| format!("{number}\n")).collect::<String>();
        // Some of these fit into what lies between the two, so that the program has ended meanwhile.
        let late = (1..=12).map(|part| {
            let most = part * 5000;
            (most, std::thread::spawn(move || heard_late(&format!("seq {most}"))))
        });
        for (most, heard) in late.collect::<Vec<_>>() {
            let heard = heard.join().unwrap();
            assert!(heard == numbers(most), "of {most} {} bytes were heard", heard.len());
        }
        assert!(heard_late("seq 10000; yes &").starts_with(&numbers(10_000)));
    }

    #[test]
    fn with_its_host_go_the_programs_also_where_the_connection_is_reset() {
        let (host, port) = UnixStream::pair().unwrap();
        let port = File::from(OwnedFd::from(port));
        let folder = std::env::temp_dir().join(format!("goldsmith-agent-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let leader = folder.join("leader");
        let server = std::thread::spawn(|| serve(port, Silence::Ends));
        let script = format!("echo $$ > {0}.new; mv {0}.new {0}; exec sleep 600", leader.display());
        let request = ToGuest::Request { id: 1, op: Op::Exec(sh(&script)) };
        (&host).write_all(&message::encode(&ToGuest::Attach { session: 1 }).unwrap()).unwrap();
        (&host).write_all(&message::encode(&request).unwrap()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while !leader.exists() {
            assert!(Instant::now() < deadline, "the program does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        let group: i32 = std::fs::read_to_string(&leader).unwrap().trim().parse().unwrap();
        assert!(members(group) > 0);
        // The greeting was never read, so the kernel resets the connection.
        drop(host);
        drop(server.join().unwrap());
        assert_eq!(members(group), 0);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
