// A go-libp2p node with a Kademlia DHT, as Spegel runs one, driven by JSON lines on stdin and answering on stdout.
//
//	{"cmd":"connect","addr":"/ip4/127.0.0.1/tcp/1/p2p/..."}  ->  {"ok":true, ...} or {"ok":false,"error":"..."}
//
// What Spegel does beside libp2p is done with the same libraries and formats: the page /id of its http bootstrap
// (serve_id, get_id) and the key that it keeps in its data directory (write_key, read_key).
package main

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p/core/crypto"
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
	Path     string `json:"path"`
	URL      string `json:"url"`
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
	switch r.Cmd {
	case "serve_id": // {} -> the base address of a page /id, as Spegel 0.2 to 0.7 serves it
		body, err := peer.AddrInfo{ID: h.ID(), Addrs: h.Addrs()}.MarshalJSON()
		if err != nil {
			return nil, err
		}
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		mux := http.NewServeMux()
		mux.HandleFunc("/id", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(body) })
		go func() { _ = http.Serve(listener, mux) }()
		return map[string]any{"url": "http://" + listener.Addr().String()}, nil
	case "get_id": // asks base address + /id and connects, as Spegel 0.4 to 0.7 does
		body, err := get(ctx, r.URL+"/id")
		if err != nil {
			return nil, err
		}
		info := peer.AddrInfo{}
		if err := info.UnmarshalJSON(body); err != nil {
			return nil, err
		}
		return map[string]any{"id": info.ID.String()}, h.Connect(ctx, info)
	case "get_id_list": // asks the whole URL and connects, as Spegel's main branch does
		body, err := get(ctx, r.URL)
		if err != nil {
			return nil, err
		}
		infos := []struct{ ID string }{}
		if err := json.Unmarshal(body, &infos); err != nil {
			return nil, err
		}
		full := []peer.AddrInfo{}
		if err := json.Unmarshal(body, &full); err != nil {
			return nil, err
		}
		return map[string]any{"id": infos[0].ID}, h.Connect(ctx, full[0])
	case "write_key": // a new key, in the form in which Spegel keeps it
		_, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, err
		}
		der, err := x509.MarshalPKCS8PrivateKey(private)
		if err != nil {
			return nil, err
		}
		block := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
		if err := os.WriteFile(r.Path, block, 0o600); err != nil {
			return nil, err
		}
		return peerOf(private)
	case "read_key": // the key in a file, read as Spegel reads it
		data, err := os.ReadFile(r.Path)
		if err != nil {
			return nil, err
		}
		block, _ := pem.Decode(data)
		if block == nil || block.Type != "PRIVATE KEY" {
			return nil, fmt.Errorf("no PEM block of a private key")
		}
		parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			return nil, err
		}
		private, ok := parsed.(ed25519.PrivateKey)
		if !ok {
			return nil, fmt.Errorf("not an Ed25519 private key")
		}
		return peerOf(private)
	}
	return nil, fmt.Errorf("unknown command %q", r.Cmd)
}

func get(ctx context.Context, url string) ([]byte, error) {
	question, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	answer, err := http.DefaultClient.Do(question)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answered %s", url, answer.Status)
	}
	return io.ReadAll(answer.Body)
}

func peerOf(key ed25519.PrivateKey) (map[string]any, error) {
	private, _, err := crypto.KeyPairFromStdKey(&key)
	if err != nil {
		return nil, err
	}
	id, err := peer.IDFromPrivateKey(private)
	return map[string]any{"id": id.String()}, err
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
