package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"os"

	"github.com/go-kratos/kratos/v2"
	"github.com/go-kratos/kratos/v2/middleware"
	"github.com/go-kratos/kratos/v2/middleware/metadata"
	"github.com/go-kratos/kratos/v2/middleware/recovery"
	kgrpc "github.com/go-kratos/kratos/v2/transport/grpc"
	khttp "github.com/go-kratos/kratos/v2/transport/http"
	"google.golang.org/grpc"

	"interop/pb"
)

// serve runs an application until it is told to stop, and prints its endpoints once it serves.
func serve(where *settings) error {
	service := &peer{}
	if where.next != "" {
		next, err := where.grpc(where.next)
		if err != nil {
			return err
		}
		service.next = pb.NewPeerClient(next)
	}
	around := []middleware.Middleware{recovery.Recovery(), metadata.Server()}
	overGrpc := []kgrpc.ServerOption{
		kgrpc.Address("127.0.0.1:0"), kgrpc.Middleware(around...), kgrpc.Options(grpc.StatsHandler(encodings{})),
	}
	overHTTP := []khttp.ServerOption{khttp.Address("127.0.0.1:0"), khttp.Middleware(around...)}
	if where.cert != "" {
		pair, err := tls.LoadX509KeyPair(where.cert, where.key)
		if err != nil {
			return err
		}
		identity := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
		overGrpc = append(overGrpc, kgrpc.TLSConfig(identity))
		overHTTP = append(overHTTP, khttp.TLSConfig(identity))
	}
	grpcServer, httpServer := kgrpc.NewServer(overGrpc...), khttp.NewServer(overHTTP...)
	pb.RegisterPeerServer(grpcServer, service)
	route(httpServer, service)
	options := []kratos.Option{
		kratos.ID(where.id), kratos.Name(where.name), kratos.Version("v1.0"),
		kratos.Metadata(map[string]string{"zone": "a<b", "weight": "10"}),
		kratos.Server(grpcServer, httpServer),
		kratos.AfterStart(func(ctx context.Context) error {
			app, _ := kratos.FromContext(ctx)
			return json.NewEncoder(os.Stdout).Encode(app.Endpoint())
		}),
	}
	if where.etcd != nil {
		options = append(options, kratos.Registrar(where.etcd))
	}
	return kratos.New(options...).Run()
}

// route does what kratos' generator writes for each rule.
func route(server *khttp.Server, service *peer) {
	router := server.Route("/")
	router.POST("/v1/look", bound("Look", service.Look, whole))
	router.GET("/v1/shelves/{shelf.name}/items/{id}", bound("LookUp", service.LookUp, query))
	router.PUT("/v1/items/{id}", bound("LookAt", service.LookAt, shelf))
	router.POST("/v1/relay", bound("Relay", service.Relay, whole))
	router.POST("/v1/fail", bound("Fail", service.Fail, whole))
	router.POST("/v1/hang", bound("Hang", service.Hang, whole))
	router.GET("/v1/count/{value}", service.events)
}

func whole[In any](ctx khttp.Context, in *In) error { return ctx.Bind(in) }
func query[In any](ctx khttp.Context, in *In) error { return ctx.BindQuery(in) }
func shelf(ctx khttp.Context, in *pb.LookRequest) error {
	in.Shelf = &pb.Shelf{}
	if err := ctx.Bind(in.Shelf); err != nil {
		return err
	}
	return ctx.BindQuery(in)
}

func bound[In any](
	method string, call func(context.Context, *In) (*pb.LookReply, error), bind func(khttp.Context, *In) error,
) khttp.HandlerFunc {
	return func(ctx khttp.Context) error {
		in := new(In)
		if err := bind(ctx, in); err != nil {
			return err
		}
		if err := ctx.BindVars(in); err != nil {
			return err
		}
		khttp.SetOperation(ctx, operation(method))
		answer, err := ctx.Middleware(func(ctx context.Context, _ any) (any, error) { return call(ctx, in) })(ctx, in)
		if err != nil {
			return err
		}
		return ctx.Result(200, answer)
	}
}

// events does over HTTP what Count does: kratos v2 leaves Server-Sent Events to the author, so they have the form of v3.
func (p *peer) events(ctx khttp.Context) error {
	var to pb.Number
	if err := ctx.BindVars(&to); err != nil {
		return err
	}
	out := ctx.Response()
	out.Header().Set("Content-Type", "text/event-stream")
	for value := int64(1); value <= to.Value; value++ {
		if _, err := fmt.Fprintf(out, "event: message\ndata: {\"value\":\"%d\"}\n\n", value); err != nil {
			return err
		}
	}
	if to.Value%2 == 1 {
		_, err := fmt.Fprint(out, "event: error\ndata: {\"code\":409,\"reason\":\"ODD\",\"message\":\"an odd number\"}\n\n")
		return err
	}
	return nil
}

func operation(method string) string { return "/interop.v1.Peer/" + method }
