//! A name server with the TXT records that a test says, over UDP.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::TXT;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// Answers until it is dropped. What it was not told does not exist.
#[derive(Debug)]
pub struct NameServer {
    address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    serving: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Zone {
    records: HashMap<String, Says>,
    /// How often each name was asked for.
    asked: HashMap<String, usize>,
}

#[derive(Clone, Debug)]
enum Says {
    Texts(Vec<String>),
    Code(ResponseCode),
    Nothing,
}

impl NameServer {
    /// One without records, on a port of its own.
    pub async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a name server binds");
        let address = socket.local_addr().expect("a name server has an address");
        let zone = Arc::<Mutex<Zone>>::default();
        let serving = tokio::spawn(serve(socket, Arc::clone(&zone)));
        Self { address, zone, serving }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// One more TXT record at `name`, in strings of 16 bytes, as long ones come in several.
    pub fn set(&self, name: &str, text: &str) {
        match self.zone().records.entry(name.to_owned()).or_insert_with(|| Says::Texts(Vec::new())) {
            Says::Texts(texts) => texts.push(text.to_owned()),
            other => *other = Says::Texts(vec![text.to_owned()]),
        }
    }

    /// Answers SERVFAIL for `name`.
    pub fn fail(&self, name: &str) {
        self.zone().records.insert(name.to_owned(), Says::Code(ResponseCode::ServFail));
    }

    /// Does not answer for `name`.
    pub fn be_silent(&self, name: &str) {
        self.zone().records.insert(name.to_owned(), Says::Nothing);
    }

    /// How often `name` was asked for.
    pub fn asked(&self, name: &str) -> usize {
        self.zone().asked.get(name).copied().unwrap_or_default()
    }

    /// How often anything was asked for.
    pub fn questions(&self) -> usize {
        self.zone().asked.values().sum()
    }

    fn zone(&self) -> MutexGuard<'_, Zone> {
        lock(&self.zone)
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn lock(zone: &Mutex<Zone>) -> MutexGuard<'_, Zone> {
    zone.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(socket: UdpSocket, zone: Arc<Mutex<Zone>>) {
    let mut buffer = [0; 4096];
    while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
        let question = buffer.get(..length).and_then(|bytes| Message::from_vec(bytes).ok());
        if let Some(answer) = question.and_then(|question| answer(&question, &zone)) {
            let _ = socket.send_to(&answer, peer).await;
        }
    }
}

fn answer(question: &Message, zone: &Mutex<Zone>) -> Option<Vec<u8>> {
    let query = question.queries.first()?.clone();
    let name = query.name().to_ascii().to_ascii_lowercase().trim_end_matches('.').to_owned();
    let mut zone = lock(zone);
    *zone.asked.entry(name.clone()).or_default() += 1;
    let mut answer = Message::response(question.id, question.op_code);
    match zone.records.get(&name).cloned() {
        Some(Says::Texts(texts)) if query.query_type() == RecordType::TXT => {
            answer.add_answers(texts.iter().map(|text| record(query.name(), text)));
        }
        Some(Says::Texts(_)) => {}
        Some(Says::Code(code)) => answer.metadata.response_code = code,
        Some(Says::Nothing) => return None,
        None => answer.metadata.response_code = ResponseCode::NXDomain,
    }
    answer.metadata.recursion_desired = true;
    answer.metadata.recursion_available = true;
    answer.add_query(query);
    answer.to_vec().ok()
}

fn record(name: &Name, text: &str) -> Record {
    let strings = text.as_bytes().chunks(16).collect();
    Record::from_rdata(name.clone(), 60, RData::TXT(TXT::from_bytes(strings)))
}
