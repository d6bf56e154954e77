package main

import (
	"context"
	"errors"
	"io"
	"strings"
	"time"

	kerrors "github.com/go-kratos/kratos/v2/errors"
	"github.com/go-kratos/kratos/v2/metadata"
	"github.com/go-kratos/kratos/v2/transport"
	"google.golang.org/grpc"
	"google.golang.org/grpc/stats"

	"interop/pb"
)

// peer is the service; next is whom Relay asks.
type peer struct {
	pb.UnimplementedPeerServer
	next pb.PeerClient
}

func (p *peer) Look(ctx context.Context, in *pb.LookRequest) (*pb.LookReply, error) {
	seen := &pb.LookReply{Seen: in, Metadata: map[string]string{}, Encoding: encoding(ctx)}
	if deadline, ok := ctx.Deadline(); ok {
		seen.LeftMs = time.Until(deadline).Milliseconds()
	}
	if info, ok := transport.FromServerContext(ctx); ok {
		seen.Operation = info.Operation()
		info.ReplyHeader().Set("x-peer", "go")
		info.ReplyHeader().Set("x-endpoint", info.Endpoint())
	}
	if found, ok := metadata.FromServerContext(ctx); ok {
		found.Range(func(name string, values []string) bool {
			if strings.HasPrefix(name, "x-md-") {
				seen.Metadata[name] = strings.Join(values, ",")
			}
			return true
		})
	}
	return seen, nil
}

func (p *peer) LookUp(ctx context.Context, in *pb.LookRequest) (*pb.LookReply, error) {
	return p.Look(ctx, in)
}

func (p *peer) LookAt(ctx context.Context, in *pb.LookRequest) (*pb.LookReply, error) {
	return p.Look(ctx, in)
}

func (p *peer) Relay(ctx context.Context, in *pb.LookRequest) (*pb.LookReply, error) {
	return p.next.Look(ctx, in)
}

func (p *peer) Fail(_ context.Context, in *pb.FailRequest) (*pb.LookReply, error) {
	if in.Code == 0 {
		return nil, errors.New(in.Message)
	}
	return nil, kerrors.New(int(in.Code), in.Reason, in.Message).WithMetadata(in.Metadata)
}

func (p *peer) Hang(ctx context.Context, _ *pb.LookRequest) (*pb.LookReply, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (p *peer) Count(to *pb.Number, stream grpc.ServerStreamingServer[pb.Number]) error {
	for value := int64(1); value <= to.Value; value++ {
		if err := stream.Send(&pb.Number{Value: value}); err != nil {
			return err
		}
	}
	if to.Value%2 == 1 {
		return kerrors.New(409, "ODD", "an odd number").WithMetadata(map[string]string{"after": "all"})
	}
	return nil
}

func (p *peer) Sum(stream grpc.ClientStreamingServer[pb.Number, pb.Number]) error {
	var sum int64
	for {
		number, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return stream.SendAndClose(&pb.Number{Value: sum})
		}
		if err != nil {
			return err
		}
		sum += number.Value
	}
}

func (p *peer) Double(stream grpc.BidiStreamingServer[pb.Number, pb.Number]) error {
	for {
		number, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := stream.Send(&pb.Number{Value: 2 * number.Value}); err != nil {
			return err
		}
	}
}

// encodings notes whether what comes is compressed, which grpc-go tells nobody but its observers.
type encodings struct{}

type encodingKey struct{}

func (encodings) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context {
	return observed(ctx)
}

func observed(ctx context.Context) context.Context {
	if ctx.Value(encodingKey{}) != nil {
		return ctx
	}
	return context.WithValue(ctx, encodingKey{}, new(string))
}

func (encodings) HandleRPC(ctx context.Context, event stats.RPCStats) {
	if in, ok := event.(*stats.InPayload); ok && in.CompressedLength != in.Length {
		*ctx.Value(encodingKey{}).(*string) = "compressed"
	}
}

func (encodings) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (encodings) HandleConn(context.Context, stats.ConnStats)                       {}

func encoding(ctx context.Context) string {
	if found, ok := ctx.Value(encodingKey{}).(*string); ok {
		return *found
	}
	return ""
}
