//! Port-forward over a WebSocket, as the kubelet does it under the subprotocol `v4.channel.k8s.io`: each message begins
//! with the number of its channel, 0 for the port's bytes and 1 for why it cannot be had, and the first message of each
//! names the port.

use std::sync::Arc;

use anyhow::Result;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use futures::{SinkExt, StreamExt};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Message, Role};

use super::objects::{Failure, Resource};
use super::{Double, api};

const SUBPROTOCOL: &str = "v4.channel.k8s.io";
const DATA: u8 = 0;
const ERROR: u8 = 1;
/// What the kubelet copies at once.
const READ_BYTES: usize = 32 * 1024;

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// The answer that switches protocols; the forwarding follows by itself.
pub fn forward(double: &Arc<Double>, name: &str, request: Request<Incoming>) -> Result<Response<Body>, Failure> {
    let asked = api::parameter(&request, "ports").and_then(|ports| ports.parse::<u16>().ok());
    let asked = asked.ok_or_else(|| Failure::invalid("the double forwards one port"))?;
    let key =
        handshake(request.headers()).ok_or_else(|| Failure::invalid("the double forwards over WebSocket only"))?;
    let accept = HeaderValue::from_str(&key).map_err(|error| Failure::invalid(error.to_string()))?;
    let port = {
        let state = double.state();
        state.objects.get(Resource::Pods, name)?;
        state.attempts.get(name).and_then(|attempt| attempt.port())
    };
    // Whoever forwards ends with either side; a Pod's relay ends with the Pod.
    tokio::spawn(async move {
        if let Ok(upgraded) = hyper::upgrade::on(request).await {
            let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
            let _ = talk(socket, asked, port).await;
        }
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    Ok(response)
}

/// The key of the answer; none where no WebSocket of this subprotocol is asked for.
fn handshake(headers: &HeaderMap) -> Option<String> {
    let value = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let upgrades = value(header::UPGRADE)?.eq_ignore_ascii_case("websocket");
    let offered = value(header::SEC_WEBSOCKET_PROTOCOL)?.split(',').any(|one| one.trim() == SUBPROTOCOL);
    let key = headers.get(header::SEC_WEBSOCKET_KEY)?;
    (upgrades && offered).then(|| derive_accept_key(key.as_bytes()))
}

/// `asked` is the port in the Pod, `port` where that is on this machine.
async fn talk(mut socket: Socket, asked: u16, port: Option<u16>) -> Result<()> {
    for channel in [DATA, ERROR] {
        socket.send(message(channel, &asked.to_le_bytes())).await?;
    }
    match connect(port).await {
        Ok(stream) => copy(&mut socket, stream).await?,
        Err(error) => {
            let said = format!("error forwarding port {asked}: {error}");
            socket.send(message(ERROR, said.as_bytes())).await?;
        }
    }
    Ok(socket.close(None).await?)
}

async fn connect(port: Option<u16>) -> std::io::Result<TcpStream> {
    let port = port.ok_or(std::io::ErrorKind::ConnectionRefused)?;
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Until either side ends.
async fn copy(socket: &mut Socket, mut stream: TcpStream) -> Result<()> {
    let (mut from_pod, mut to_pod) = stream.split();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        tokio::select! {
            read = from_pod.read(&mut buffer) => match read? {
                0 => return Ok(()),
                read => socket.send(message(DATA, &buffer[..read])).await?,
            },
            received = socket.next() => match received.transpose()? {
                Some(Message::Binary(bytes)) if bytes.first() == Some(&DATA) => to_pod.write_all(&bytes[1..]).await?,
                Some(Message::Close(_)) | None => return Ok(()),
                Some(_) => {}
            },
        }
    }
}

fn message(channel: u8, bytes: &[u8]) -> Message {
    let mut message = Vec::with_capacity(bytes.len() + 1);
    message.push(channel);
    message.extend_from_slice(bytes);
    Message::binary(message)
}
