// A go-libp2p node with a Kademlia DHT, as Spegel runs one, driven by JSON lines on stdin and answering on stdout.
//
//	{"cmd":"connect","addr":"/ip4/127.0.0.1/tcp/1/p2p/..."}  ->  {"ok":true, ...} or {"ok":false,"error":"..."}
package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/ipfs/go-cid"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
	"github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multihash"
)

const echoProtocol = "/speil-test/echo/1.0.0"

type request struct {
	Cmd      string `json:"cmd"`
	Addr     string `json:"addr"`
	Peer     string `json:"peer"`
	Key      string `json:"key"`
	Protocol string `json:"protocol"`
	Size     int    `json:"size"`
}

func main() {
	ctx := context.Background()
	listen := "/ip4/127.0.0.1/tcp/0"
	if len(os.Args) > 1 {
		listen = os.Args[1]
	}
	h, err := libp2p.New(libp2p.ListenAddrStrings(listen), libp2p.DisableRelay())
	if err != nil {
		panic(err)
	}
	h.SetStreamHandler(echoProtocol, func(s network.Stream) {
		_, _ = io.Copy(s, s)
		_ = s.Close()
	})
	d, err := dht.New(ctx, h, dht.Mode(dht.ModeServer), dht.ProtocolPrefix("/spegel"), dht.DisableValues(),
		dht.AddressFilter(func(a []multiaddr.Multiaddr) []multiaddr.Multiaddr { return a }))
	if err != nil {
		panic(err)
	}
	out := json.NewEncoder(os.Stdout)
	addrs := []string{}
	for _, a := range h.Addrs() {
		addrs = append(addrs, a.String())
	}
	_ = out.Encode(map[string]any{"ok": true, "id": h.ID().String(), "addrs": addrs})
	scanner := bufio.NewScanner(os.Stdin)
	for scanner.Scan() {
		var r request
		answer := map[string]any{}
		err := json.Unmarshal(scanner.Bytes(), &r)
		if err == nil {
			answer, err = run(h, d, r)
		}
		if err != nil {
			_ = out.Encode(map[string]any{"ok": false, "error": err.Error()})
			continue
		}
		answer["ok"] = true
		_ = out.Encode(answer)
	}
}

func run(h host.Host, d *dht.IpfsDHT, r request) (map[string]any, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var id peer.ID
	var err error
	if r.Peer != "" {
		if id, err = peer.Decode(r.Peer); err != nil {
			return nil, err
		}
	}
	switch r.Cmd {
	case "connect":
		info, err := peer.AddrInfoFromString(r.Addr)
		if err != nil {
			return nil, err
		}
		return map[string]any{}, h.Connect(ctx, *info)
	case "disconnect":
		return map[string]any{}, h.Network().ClosePeer(id)
	case "protocols":
		found, err := h.Peerstore().GetProtocols(id)
		agent, _ := h.Peerstore().Get(id, "AgentVersion")
		addrs := []string{}
		for _, a := range h.Peerstore().Addrs(id) {
			addrs = append(addrs, a.String())
		}
		return map[string]any{"protocols": found, "agent": agent, "addrs": addrs}, err
	case "ping":
		result := <-ping.Ping(ctx, h, id)
		return map[string]any{"seconds": result.RTT.Seconds()}, result.Error
	case "echo":
		s, err := h.NewStream(ctx, id, protocol.ID(r.Protocol))
		if err != nil {
			return nil, err
		}
		defer s.Reset()
		sent := make([]byte, r.Size)
		for i := range sent {
			sent[i] = byte(i * 7)
		}
		go func() {
			_, _ = s.Write(sent)
			_ = s.CloseWrite()
		}()
		back, err := io.ReadAll(s)
		if err != nil {
			return nil, err
		}
		if string(back) != string(sent) {
			return nil, fmt.Errorf("echo differs: %d of %d bytes", len(back), len(sent))
		}
		return map[string]any{"size": len(back)}, nil
	case "dht_ping":
		return map[string]any{}, d.Ping(ctx, id)
	case "find_peer":
		info, err := d.FindPeer(ctx, id)
		addrs := []string{}
		for _, a := range info.Addrs {
			addrs = append(addrs, a.String())
		}
		return map[string]any{"addrs": addrs}, err
	case "table":
		peers := []string{}
		for _, p := range d.RoutingTable().ListPeers() {
			peers = append(peers, p.String())
		}
		return map[string]any{"peers": peers}, nil
	case "provide":
		return map[string]any{}, d.Provide(ctx, key(r.Key), true)
	case "find_providers":
		found := []string{}
		for p := range d.FindProvidersAsync(ctx, key(r.Key), 5) {
			found = append(found, p.ID.String())
		}
		return map[string]any{"providers": found}, nil
	}
	return nil, fmt.Errorf("unknown command %q", r.Cmd)
}

// key is Spegel's: CIDv1, raw, sha2-256 of the name.
func key(name string) cid.Cid {
	sum := sha256.Sum256([]byte(name))
	mh, err := multihash.Encode(sum[:], multihash.SHA2_256)
	if err != nil {
		panic(err)
	}
	return cid.NewCidV1(cid.Raw, mh)
}
