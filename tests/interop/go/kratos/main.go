// A kratos service and client for the kit to meet: `serve` answers calls, `call` makes those that come in as lines of
// JSON. docs/interop.md says what is proved with it.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/go-kratos/kratos/v2/log"
	"github.com/go-kratos/kratos/v2/middleware/metadata"
	kgrpc "github.com/go-kratos/kratos/v2/transport/grpc"
	khttp "github.com/go-kratos/kratos/v2/transport/http"
	"google.golang.org/grpc"
)

// patience is for a call: nothing here is about speed.
const patience = 20 * time.Second

type settings struct {
	target, httpTarget, next string
	cert, key, ca, server    string
	name, id                 string
	etcd                     *etcd
}

func main() {
	log.SetLogger(log.NewStdLogger(os.Stderr))
	if err := run(); err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	if len(os.Args) < 2 {
		return errors.New("usage: kratos serve|call [flags]")
	}
	where, registry := &settings{}, ""
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	flags.StringVar(&where.target, "grpc", "", "call: whom over gRPC")
	flags.StringVar(&where.httpTarget, "http", "", "call: whom over HTTP")
	flags.StringVar(&where.next, "next", "", "serve: whom Relay asks, over gRPC")
	flags.StringVar(&where.cert, "cert", "", "serve: the certificate; none for plain text")
	flags.StringVar(&where.key, "key", "", "serve: its key")
	flags.StringVar(&where.ca, "ca", "", "call: whom to trust; none for plain text")
	flags.StringVar(&where.server, "server", "", "call: the name in the certificate")
	flags.StringVar(&where.name, "name", "peer", "serve: announced name")
	flags.StringVar(&where.id, "id", "go-1", "serve: announced id")
	flags.StringVar(&registry, "etcd", "", "registry, host:port,…")
	if err := flags.Parse(os.Args[2:]); err != nil {
		return err
	}
	if registry != "" {
		var err error
		if where.etcd, err = dial(strings.Split(registry, ",")); err != nil {
			return err
		}
	}
	if os.Args[1] == "serve" {
		go func() { // a test that dies takes its peer along
			_, _ = io.Copy(io.Discard, os.Stdin)
			os.Exit(0)
		}()
		return serve(where)
	}
	return call(where)
}

func (s *settings) trust() (*tls.Config, error) {
	if s.ca == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(s.ca)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	return &tls.Config{RootCAs: pool, ServerName: s.server, MinVersion: tls.VersionTLS12}, nil
}

func (s *settings) grpc(target string) (*grpc.ClientConn, error) {
	options := []kgrpc.ClientOption{kgrpc.WithEndpoint(target), kgrpc.WithTimeout(patience), kgrpc.WithMiddleware(metadata.Client())}
	options = append(options, kgrpc.WithOptions(grpc.WithStatsHandler(encodings{})))
	if s.etcd != nil {
		options = append(options, kgrpc.WithDiscovery(s.etcd))
	}
	trust, err := s.trust()
	if err != nil {
		return nil, err
	}
	if trust == nil {
		return kgrpc.DialInsecure(context.Background(), options...)
	}
	return kgrpc.Dial(context.Background(), append(options, kgrpc.WithTLSConfig(trust))...)
}

func (s *settings) http(target string) (*khttp.Client, error) {
	if target == "" {
		return nil, nil
	}
	options := []khttp.ClientOption{khttp.WithEndpoint(target), khttp.WithMiddleware(metadata.Client())}
	if s.etcd != nil {
		options = append(options, khttp.WithDiscovery(s.etcd), khttp.WithBlock())
	}
	trust, err := s.trust()
	if err != nil {
		return nil, err
	}
	if trust != nil {
		options = append(options, khttp.WithTLSConfig(trust), khttp.WithTransport(&http.Transport{TLSClientConfig: trust}))
	}
	return khttp.NewClient(context.Background(), append(options, khttp.WithTimeout(patience))...)
}
