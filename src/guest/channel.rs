//! The host's side of the conversation with the agent.
//!
//! One task owns the port. It attaches whenever an agent greets, matches replies to requests, and tells everybody who
//! waits when the agent that worked for them is gone.

use std::collections::HashMap;

use goldsmith_agent::PROTOCOL_VERSION;
use goldsmith_agent::frame::Decoder;
use goldsmith_agent::message::{
    self, Exec, Exit, Hello, Op, OpError, OpErrorKind, Reply, Size, Stream, ToGuest, ToHost,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot, watch};

use super::Error;
use crate::machine::console::plain;

/// Characters of an error of the guest's that are kept.
const MOST_WORDS: usize = 2000;
/// Messages of one request that may wait to be looked at: with the largest chunks, 4 MiB.
const BACKLOG: usize = 64;

/// A connection to the agent in one guest, through all its reboots.
#[derive(Debug, Clone)]
pub struct Agent {
    requests: mpsc::Sender<Command>,
    hello: watch::Receiver<Attached>,
}

/// Which agent is attached now.
#[derive(Debug, Clone)]
enum Attached {
    Nobody,
    Agent(Hello),
    /// One that can't be talked to, and why.
    Stranger(String),
}

#[derive(Debug)]
enum Command {
    /// With a place for the request's id.
    Request { op: Op, news: mpsc::Sender<News>, begun: Option<oneshot::Sender<u32>> },
    /// For a request that is under way.
    Tell(ToGuest),
}

/// A program on a terminal of its own. Dropped, the program is ended.
#[derive(Debug)]
pub struct Terminal {
    keyboard: Keyboard,
    news: mpsc::Receiver<News>,
}

/// The keys of a terminal. Who types and who reads should be two: while much is written, keys wait until it was read.
#[derive(Debug, Clone)]
pub struct Keyboard {
    id: u32,
    requests: mpsc::Sender<Command>,
}

/// What comes from a terminal.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// Bytes to show.
    Output(Vec<u8>),
    /// Its program ended.
    Ended(Exit),
}

impl Terminal {
    /// What comes next. Waiting for it may be given up at any time without loss.
    pub async fn next(&mut self) -> Result<Heard, Error> {
        match self.news.recv().await {
            Some(News::Output(_, data)) => Ok(Heard::Output(data)),
            Some(News::Reply(Ok(Reply::Exited(exit)))) => Ok(Heard::Ended(exit)),
            Some(News::Reply(Ok(other))) => Err(unexpected(&other)),
            Some(News::Reply(Err(error))) => Err(Error::Refused(error)),
            None => Err(Error::Lost),
        }
    }

    /// Its keys.
    pub fn keyboard(&self) -> Keyboard {
        self.keyboard.clone()
    }
}

impl Keyboard {
    /// Types.
    pub async fn write(&self, keys: &[u8]) -> Result<(), Error> {
        for data in keys.chunks(goldsmith_agent::MAX_CHUNK) {
            self.tell(ToGuest::Keys { id: self.id, data: data.to_vec() }).await?;
        }
        Ok(())
    }

    /// Says how large the terminal is.
    pub async fn resize(&self, size: Size) -> Result<(), Error> {
        self.tell(ToGuest::Resize { id: self.id, size }).await
    }

    async fn tell(&self, message: ToGuest) -> Result<(), Error> {
        self.requests.send(Command::Tell(message)).await.map_err(|_| Error::Lost)
    }
}

#[derive(Debug)]
enum News {
    Output(Stream, Vec<u8>),
    Reply(Result<Reply, message::OpError>),
}

impl Agent {
    /// Talks over a port whose agent greets by itself. `closings` changes when the guest has closed its end.
    pub fn connect<S>(stream: S, closings: watch::Receiver<u64>) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        Self::start(stream, closings, false)
    }

    /// Talks over a port whose agent has worked for another host, before its machine was checkpointed.
    pub fn take_over<S>(stream: S, closings: watch::Receiver<u64>) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        Self::start(stream, closings, true)
    }

    fn start<S>(stream: S, closings: watch::Receiver<u64>, takes_over: bool) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (reader, writer) = tokio::io::split(stream);
        let (requests, inbox) = mpsc::channel(8);
        let (hello_sender, hello) = watch::channel(Attached::Nobody);
        let session = u64::from_le_bytes(*uuid::Uuid::new_v4().as_bytes().first_chunk().unwrap_or(&[1; 8])) | 1;
        let driver = Driver {
            reader,
            writer,
            inbox,
            closings,
            hello: hello_sender,
            session,
            // A program that another host has left behind in a checkpointed machine may still write, under its number.
            next_id: uuid::Uuid::new_v4().as_fields().0,
            pending: HashMap::new(),
        };
        tokio::spawn(driver.drive(takes_over));
        Self { requests, hello }
    }

    /// Which boot of the guest the attached agent is of.
    pub fn boot_id(&self) -> Option<String> {
        match &*self.hello.borrow() {
            Attached::Agent(hello) => Some(hello.boot_id.clone()),
            Attached::Nobody | Attached::Stranger(_) => None,
        }
    }

    /// The agent that is attached, or the next one that will be.
    pub async fn hello(&self) -> Result<Hello, Error> {
        self.hello_when(|_| true).await
    }

    /// The first agent of a boot other than this one.
    pub async fn hello_after(&self, boot_id: &str) -> Result<Hello, Error> {
        self.hello_when(|hello| hello.boot_id != boot_id).await
    }

    async fn hello_when(&self, wanted: impl Fn(&Hello) -> bool) -> Result<Hello, Error> {
        let mut hello = self.hello.clone();
        let is_it = |attached: &Attached| match attached {
            Attached::Agent(hello) => wanted(hello),
            Attached::Nobody => false,
            Attached::Stranger(_) => true,
        };
        let attached = hello.wait_for(is_it).await.map_err(|_| Error::Lost)?.clone();
        match attached {
            Attached::Agent(hello) => Ok(hello),
            Attached::Nobody => Err(Error::Lost),
            Attached::Stranger(why) => Err(Error::Protocol(why)),
        }
    }

    /// Asks for something that is not a program.
    pub async fn request(&self, op: Op) -> Result<Reply, Error> {
        self.converse(op, |_, _| {}).await
    }

    /// Runs a program. Cancelled with the future that waits for it.
    pub async fn exec(&self, exec: Exec, output: impl FnMut(Stream, &[u8])) -> Result<Exit, Error> {
        match self.converse(Op::Exec(exec), output).await? {
            Reply::Exited(exit) => Ok(exit),
            other => Err(unexpected(&other)),
        }
    }

    /// Begins a program on a terminal of its own.
    pub async fn terminal(&self, op: Op) -> Result<Terminal, Error> {
        let (news, inbox) = mpsc::channel(BACKLOG);
        let (begun, id) = oneshot::channel();
        self.requests.send(Command::Request { op, news, begun: Some(begun) }).await.map_err(|_| Error::Lost)?;
        let id = id.await.map_err(|_| Error::Lost)?;
        Ok(Terminal { keyboard: Keyboard { id, requests: self.requests.clone() }, news: inbox })
    }

    async fn converse(&self, op: Op, mut output: impl FnMut(Stream, &[u8])) -> Result<Reply, Error> {
        let (news, mut inbox) = mpsc::channel(BACKLOG);
        self.requests.send(Command::Request { op, news, begun: None }).await.map_err(|_| Error::Lost)?;
        loop {
            match inbox.recv().await {
                Some(News::Output(stream, data)) => output(stream, &data),
                Some(News::Reply(Ok(reply))) => return Ok(reply),
                Some(News::Reply(Err(error))) => {
                    // A guest's words go to a terminal, and are cut to what a person reads.
                    let message = plain(&error.message).chars().take(MOST_WORDS).collect();
                    return Err(Error::Refused(OpError { message, ..error }));
                }
                None => return Err(Error::Lost),
            }
        }
    }
}

/// The reply is not of the kind that the request is answered by.
pub(super) fn unexpected(reply: &Reply) -> Error {
    Error::Protocol(format!("unexpected answer {reply:?}"))
}

struct Driver<S> {
    reader: ReadHalf<S>,
    writer: WriteHalf<S>,
    inbox: mpsc::Receiver<Command>,
    closings: watch::Receiver<u64>,
    hello: watch::Sender<Attached>,
    session: u64,
    next_id: u32,
    pending: HashMap<u32, mpsc::Sender<News>>,
}

impl<S: AsyncRead + AsyncWrite> Driver<S> {
    /// Works until the port or everybody who could ask for something is gone.
    async fn drive(mut self, takes_over: bool) {
        if takes_over && self.send(&ToGuest::Attach { session: self.session }).await.is_err() {
            return;
        }
        let mut decoder = Decoder::default();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            tokio::select! {
                command = self.inbox.recv() => {
                    let done = match command {
                        None => return,
                        Some(Command::Request { op, news, begun }) => self.request(op, news, begun).await,
                        Some(Command::Tell(message)) => self.send(&message).await,
                    };
                    if done.is_err() {
                        return;
                    }
                }
                read = self.reader.read(&mut buffer) => {
                    let Ok(n @ 1..) = read else { return };
                    decoder.extend(&buffer[..n]);
                    while let Some(payload) = decoder.next_frame() {
                        if self.receive(&payload).await.is_err() {
                            return;
                        }
                    }
                }
                Ok(()) = self.closings.changed() => {
                    decoder.reset();
                    self.detach();
                }
            }
        }
    }

    async fn request(
        &mut self,
        op: Op,
        news: mpsc::Sender<News>,
        begun: Option<oneshot::Sender<u32>>,
    ) -> std::io::Result<()> {
        // Without an agent there is nobody to ask; dropping `news` says so.
        if !matches!(*self.hello.borrow(), Attached::Agent(_)) {
            return Ok(());
        }
        self.forget_abandoned().await?;
        let id = self.next_id;
        self.next_id = self.next_id.wrapping_add(1);
        let frame = match message::encode(&ToGuest::Request { id, op }) {
            Ok(frame) => frame,
            // A step's inputs, say, which are other steps' outputs; that is its failure and not the connection's.
            Err(error) => {
                let message = format!("it is too much to ask of the agent at once: {error}");
                let refusal = OpError { kind: OpErrorKind::Other, message };
                // Who asked may have stopped waiting.
                let _unheard = news.send(News::Reply(Err(refusal))).await;
                return Ok(());
            }
        };
        self.pending.insert(id, news);
        if let Some(begun) = begun {
            // Who asked may have stopped waiting.
            let _unheard = begun.send(id);
        }
        self.writer.write_all(&frame).await
    }

    /// Ends programs for which nobody waits any more.
    async fn forget_abandoned(&mut self) -> std::io::Result<()> {
        let abandoned: Vec<u32> = self.pending.iter().filter(|(_, news)| news.is_closed()).map(|(id, _)| *id).collect();
        for id in abandoned {
            self.pending.remove(&id);
            self.send(&ToGuest::Cancel { id }).await?;
        }
        Ok(())
    }

    async fn receive(&mut self, payload: &[u8]) -> std::io::Result<()> {
        match message::decode(payload) {
            Ok(ToHost::Hello(hello)) => self.greeted(hello).await,
            Ok(ToHost::Output { id, stream, data }) => {
                self.tell(id, News::Output(stream, data)).await;
                Ok(())
            }
            Ok(ToHost::Reply { id, result }) => {
                self.tell(id, News::Reply(result)).await;
                self.pending.remove(&id);
                Ok(())
            }
            Err(error) => {
                tracing::warn!(%error, "a message of the guest's agent was dropped");
                Ok(())
            }
        }
    }

    async fn greeted(&mut self, hello: Hello) -> std::io::Result<()> {
        if hello.protocol != PROTOCOL_VERSION {
            let why = format!("it speaks protocol {} instead of {PROTOCOL_VERSION}", hello.protocol);
            self.hello.send_replace(Attached::Stranger(why));
            return Ok(());
        }
        if hello.session == self.session {
            self.hello.send_replace(Attached::Agent(hello));
            return Ok(());
        }
        // An agent that knows no session has just started, so the one before it is gone.
        self.detach();
        self.send(&ToGuest::Attach { session: self.session }).await
    }

    fn detach(&mut self) {
        self.pending.clear();
        self.hello.send_replace(Attached::Nobody);
    }

    async fn tell(&mut self, id: u32, news: News) {
        if let Some(waiting) = self.pending.get(&id) {
            // Who asked may have stopped waiting.
            let _unheard = waiting.send(news).await;
        }
    }

    async fn send(&mut self, message: &ToGuest) -> std::io::Result<()> {
        let frame = message::encode(message).map_err(|error| std::io::Error::other(error.to_string()))?;
        self.writer.write_all(&frame).await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::DuplexStream;

    use super::*;

    /// The guest's end of a port, played by the test.
    struct Peer {
        stream: DuplexStream,
        decoder: Decoder,
    }

    impl Peer {
        fn new() -> (Self, Agent, watch::Sender<u64>) {
            let (ours, theirs) = tokio::io::duplex(1 << 20);
            let (closings, receiver) = watch::channel(0);
            (Self { stream: theirs, decoder: Decoder::default() }, Agent::connect(ours, receiver), closings)
        }

        async fn say(&mut self, message: &ToHost) {
            self.stream.write_all(&message::encode(message).unwrap()).await.unwrap();
        }

        async fn hear(&mut self) -> ToGuest {
            let mut buffer = [0; 1024];
            loop {
                if let Some(payload) = self.decoder.next_frame() {
                    return message::decode(&payload).unwrap();
                }
                let n = self.stream.read(&mut buffer).await.unwrap();
                assert!(n > 0, "the host hung up");
                self.decoder.extend(&buffer[..n]);
            }
        }

        async fn greet(&mut self, boot_id: &str) {
            let hello = |session| {
                ToHost::Hello(Hello {
                    protocol: PROTOCOL_VERSION,
                    session,
                    version: "x".to_owned(),
                    boot_id: boot_id.to_owned(),
                })
            };
            self.say(&hello(0)).await;
            let ToGuest::Attach { session } = self.hear().await else { panic!("no attach") };
            self.say(&hello(session)).await;
        }
    }

    fn exec() -> Exec {
        Exec { argv: vec!["true".to_owned()], env: Vec::new(), cwd: "/".to_owned(), timeout_ms: None }
    }

    #[tokio::test]
    async fn a_program_runs_and_its_output_arrives_in_order() {
        let (mut peer, agent, _closings) = Peer::new();
        peer.greet("one").await;
        agent.hello().await.unwrap();
        let running = tokio::spawn(async move {
            let mut text = Vec::new();
            let exit = agent.exec(exec(), |_, data| text.extend_from_slice(data)).await.unwrap();
            (exit, text)
        });
        let ToGuest::Request { id, op } = peer.hear().await else { panic!("no request") };
        assert_eq!(op, Op::Exec(exec()));
        for data in [b"one ".to_vec(), b"two".to_vec()] {
            peer.say(&ToHost::Output { id, stream: Stream::Stdout, data }).await;
        }
        peer.say(&ToHost::Reply { id, result: Ok(Reply::Exited(Exit::Code(3))) }).await;
        assert_eq!(running.await.unwrap(), (Exit::Code(3), b"one two".to_vec()));
    }

    #[tokio::test]
    async fn a_reboot_ends_what_runs_and_cuts_no_later_frame() {
        let (mut peer, agent, closings) = Peer::new();
        peer.greet("one").await;
        agent.hello().await.unwrap();
        let running = {
            let agent = agent.clone();
            tokio::spawn(async move { agent.exec(exec(), |_, _| {}).await })
        };
        let ToGuest::Request { id, .. } = peer.hear().await else { panic!("no request") };
        // The guest is reset in the middle of a large frame.
        let output = ToHost::Output { id, stream: Stream::Stdout, data: vec![1; 60_000] };
        let frame = message::encode(&output).unwrap();
        peer.stream.write_all(&frame[..30_000]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        closings.send_modify(|n| *n += 1);
        assert!(matches!(running.await.unwrap(), Err(Error::Lost)));
        let next = {
            let agent = agent.clone();
            tokio::spawn(async move { agent.hello_after("one").await })
        };
        peer.greet("two").await;
        assert_eq!(next.await.unwrap().unwrap().boot_id, "two");
    }

    #[tokio::test]
    async fn what_is_too_much_for_one_message_is_refused_and_the_connection_stays() {
        let (mut peer, agent, _closings) = Peer::new();
        peer.greet("one").await;
        agent.hello().await.unwrap();
        let much = Op::Stat { path: "x".repeat(1 << 20), follow: true };
        let refused = agent.request(much).await.unwrap_err();
        assert!(matches!(&refused, Error::Refused(error) if error.message.contains("too much")), "{refused}");
        let next = tokio::spawn(async move { agent.request(Op::Sync).await });
        let ToGuest::Request { id, op: Op::Sync } = peer.hear().await else { panic!("no request") };
        peer.say(&ToHost::Reply { id, result: Ok(Reply::Done) }).await;
        assert_eq!(next.await.unwrap().unwrap(), Reply::Done);
    }

    #[tokio::test]
    async fn a_program_nobody_waits_for_is_cancelled() {
        let (mut peer, agent, _closings) = Peer::new();
        peer.greet("one").await;
        agent.hello().await.unwrap();
        let running = {
            let agent = agent.clone();
            tokio::spawn(async move { agent.exec(exec(), |_, _| {}).await })
        };
        let ToGuest::Request { id: first, .. } = peer.hear().await else { panic!("no request") };
        running.abort();
        let _aborted = running.await;
        let next = tokio::spawn(async move { agent.request(Op::Sync).await });
        assert_eq!(peer.hear().await, ToGuest::Cancel { id: first });
        let ToGuest::Request { id, op: Op::Sync } = peer.hear().await else { panic!("no request") };
        peer.say(&ToHost::Reply { id, result: Ok(Reply::Done) }).await;
        assert_eq!(next.await.unwrap().unwrap(), Reply::Done);
    }

    #[tokio::test]
    async fn an_agent_that_worked_for_another_host_is_taken_over() {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let (_closings, receiver) = watch::channel(0);
        let agent = Agent::take_over(ours, receiver);
        let mut peer = Peer { stream: theirs, decoder: Decoder::default() };
        let ToGuest::Attach { session } = peer.hear().await else { panic!("no attach") };
        peer.say(&ToHost::Hello(Hello {
            protocol: PROTOCOL_VERSION,
            session,
            version: "x".to_owned(),
            boot_id: "one".to_owned(),
        }))
        .await;
        assert_eq!(agent.hello().await.unwrap().boot_id, "one");
    }

    #[tokio::test]
    async fn an_agent_of_another_version_is_refused() {
        let (mut peer, agent, _closings) = Peer::new();
        let hello = Hello { protocol: 9, session: 0, version: "9".to_owned(), boot_id: "x".to_owned() };
        peer.say(&ToHost::Hello(hello)).await;
        let error = agent.hello().await.unwrap_err();
        insta::assert_snapshot!(error, @"the guest's agent can't be understood: it speaks protocol 9 instead of 3");
    }
}
