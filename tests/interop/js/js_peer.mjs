// A js-libp2p peer of the interoperation tests: it listens, or dials and measures.
//
//   node js_peer.mjs listen          until standard input ends
//   node js_peer.mjs dial ADDRESS [--pings N] [--bytes N]
//   node js_peer.mjs find ADDRESS    listen there, tell whom mDNS finds, until standard input ends
//
// Every line on standard output is one JSON document with a key "event".

import './polyfill.mjs'
import { createInterface } from 'node:readline'
import { identify } from '@libp2p/identify'
import { mdns } from '@libp2p/mdns'
import { noise } from '@libp2p/noise'
import { ping } from '@libp2p/ping'
import { tcp } from '@libp2p/tcp'
import { yamux } from '@libp2p/yamux'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'

const PERF = '/perf/1.0.0'
const BLOCK = new Uint8Array(65536)

function say (document) {
  process.stdout.write(JSON.stringify(document) + '\n')
}

async function makeNode (listen, peerDiscovery = []) {
  return createLibp2p({
    nodeInfo: { userAgent: 'js-peer' },
    addresses: { listen },
    transports: [tcp()],
    peerDiscovery,
    connectionEncrypters: [noise()],
    streamMuxers: [yamux()],
    // Asked for by name in `dial`, so that the test sees the answer.
    services: { identify: identify({ runOnConnectionOpen: false }), ping: ping() }
  })
}

async function sendZeros (stream, count) {
  while (count > 0) {
    const size = Math.min(count, BLOCK.length)
    if (!stream.send(BLOCK.subarray(0, size))) {
      await stream.onDrain()
    }
    count -= size
  }
}

// /perf/1.0.0: 8 bytes big endian say how much is wanted back; then the upload until the writing side closes.
async function servePerf (stream) {
  let header = new Uint8Array(0)
  let received = 0
  for await (const chunk of stream) {
    const bytes = chunk.subarray()
    received += bytes.length
    if (header.length < 8) {
      header = Uint8Array.from([...header, ...bytes.subarray(0, 8 - header.length)])
    }
  }
  if (header.length < 8) {
    stream.abort(new Error(`perf header of ${header.length} bytes`))
    return
  }
  const wanted = Number(new DataView(header.buffer).getBigUint64(0))
  say({ event: 'perf', received: received - 8, wanted })
  await sendZeros(stream, wanted)
  await stream.close()
}

async function measurePerf (node, peer, up, down) {
  const stream = await node.dialProtocol(peer, PERF)
  const header = new Uint8Array(8)
  new DataView(header.buffer).setBigUint64(0, BigInt(down))
  const reading = (async () => {
    let received = 0
    for await (const chunk of stream) {
      received += chunk.byteLength
    }
    return received
  })()
  stream.send(header)
  await sendZeros(stream, up)
  await stream.close()
  return reading
}

async function listen () {
  const node = await makeNode(['/ip4/127.0.0.1/tcp/0'])
  await node.handle(PERF, servePerf)
  node.addEventListener('connection:open', (event) => {
    say({
      event: 'connected',
      peer_id: event.detail.remotePeer.toString(),
      address: event.detail.remoteAddr.toString()
    })
  })
  say({
    event: 'listening',
    peer_id: node.peerId.toString(),
    addresses: node.getMultiaddrs().map(String)
  })
  for await (const line of createInterface({ input: process.stdin })) {
    say({ event: 'ignored', line })
  }
  await node.stop()
}

async function find (address) {
  const node = await makeNode([address], [mdns()])
  say({
    event: 'listening',
    peer_id: node.peerId.toString(),
    addresses: node.getMultiaddrs().map(String)
  })
  node.addEventListener('peer:discovery', (event) => {
    say({
      event: 'found',
      peer_id: event.detail.id.toString(),
      addresses: event.detail.multiaddrs.map(String)
    })
  })
  for await (const line of createInterface({ input: process.stdin })) {
    say({ event: 'ignored', line })
  }
  await node.stop()
}

async function dial (address, pings, bytes) {
  const node = await makeNode([])
  const connection = await node.dial(multiaddr(address))
  const identified = await node.services.identify.identify(connection)
  const pingMs = []
  for (let i = 0; i < pings; i++) {
    pingMs.push(await node.services.ping.ping(connection.remotePeer))
  }
  const received = await measurePerf(node, connection.remotePeer, bytes, bytes)
  say({
    event: 'done',
    peer_id: node.peerId.toString(),
    remote_peer_id: connection.remotePeer.toString(),
    remote_address: connection.remoteAddr.toString(),
    agent: identified.agentVersion,
    protocols: identified.protocols,
    addresses: identified.listenAddrs.map(String),
    observed_address: identified.observedAddr?.toString(),
    ping_ms: pingMs,
    sent: bytes,
    received
  })
  await node.stop()
}

function option (name, otherwise) {
  const at = process.argv.indexOf(name)
  return at < 0 ? otherwise : Number(process.argv[at + 1])
}

if (process.argv[2] === 'listen') {
  await listen()
} else if (process.argv[2] === 'find') {
  await find(process.argv[3])
} else if (process.argv[2] === 'dial') {
  await dial(process.argv[3], option('--pings', 50), option('--bytes', 20_000_000))
} else {
  process.stderr.write('usage: js_peer.mjs listen | dial ADDRESS [--pings N] [--bytes N] | find ADDRESS\n')
  process.exit(2)
}
process.exit(0)
