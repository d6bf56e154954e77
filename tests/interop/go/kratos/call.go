package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	kerrors "github.com/go-kratos/kratos/v2/errors"
	"github.com/go-kratos/kratos/v2/metadata"
	khttp "github.com/go-kratos/kratos/v2/transport/http"
	"github.com/go-kratos/kratos/v2/transport/http/binding"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/health/grpc_health_v1"
	grpcmetadata "google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"interop/pb"
)

// command is a line that comes in; answer is the line that goes out for it.
type command struct {
	Via       string
	Method    string
	Request   json.RawMessage
	Values    []int64
	Metadata  map[string]string
	TimeoutMs int64
	CancelMs  int64
	Gzip      bool
	Codec     string
	URL       string
}

type answer struct {
	Reply    json.RawMessage   `json:"reply,omitempty"`
	Values   []int64           `json:"values,omitempty"`
	Texts    []string          `json:"texts,omitempty"`
	Headers  map[string]string `json:"headers,omitempty"`
	Error    *failure          `json:"error,omitempty"`
	Encoding string            `json:"encoding,omitempty"`
}

type failure struct {
	Code     int32             `json:"code"`
	Reason   string            `json:"reason"`
	Message  string            `json:"message"`
	Metadata map[string]string `json:"metadata"`
}

// rules are the bindings of peer.proto.
var rules = map[string]struct{ verb, path, body string }{
	"Look":   {"POST", "/v1/look", "*"},
	"LookUp": {"GET", "/v1/shelves/{shelf.name}/items/{id}", ""},
	"LookAt": {"PUT", "/v1/items/{id}", "shelf"},
	"Relay":  {"POST", "/v1/relay", "*"},
	"Fail":   {"POST", "/v1/fail", "*"},
	"Hang":   {"POST", "/v1/hang", "*"},
}

// call reads commands and answers each, until there are no more.
func call(where *settings) error {
	overGrpc, err := where.grpc(where.target)
	if err != nil {
		return err
	}
	overHTTP, err := where.http(where.httpTarget)
	if err != nil {
		return err
	}
	lines, out := bufio.NewScanner(os.Stdin), json.NewEncoder(os.Stdout)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		var todo command
		if err := json.Unmarshal(lines.Bytes(), &todo); err != nil {
			return err
		}
		ctx := observed(context.Background())
		done, err := do(ctx, overGrpc, overHTTP, &todo)
		done.Encoding = encoding(ctx)
		if err != nil {
			known := kerrors.FromError(err)
			done.Error = &failure{known.Code, known.Reason, known.Message, known.Metadata}
		}
		if err := out.Encode(done); err != nil {
			return err
		}
	}
	return lines.Err()
}

func do(ctx context.Context, overGrpc *grpc.ClientConn, overHTTP *khttp.Client, todo *command) (*answer, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if todo.TimeoutMs > 0 {
		ctx, cancel = context.WithTimeout(ctx, time.Duration(todo.TimeoutMs)*time.Millisecond)
		defer cancel()
	}
	if todo.CancelMs > 0 {
		time.AfterFunc(time.Duration(todo.CancelMs)*time.Millisecond, cancel)
	}
	for name, value := range todo.Metadata {
		ctx = metadata.AppendToClientContext(ctx, name, value)
	}
	switch {
	case todo.Via == "health":
		return healthOf(ctx, overGrpc, todo)
	case todo.Via == "http" && todo.Method == "Count":
		return events(ctx, overHTTP, todo)
	case todo.Via == "http":
		return invokeHTTP(ctx, overHTTP, todo)
	case todo.Method == "Count" || todo.Method == "Sum" || todo.Method == "Double":
		return stream(ctx, pb.NewPeerClient(overGrpc), todo)
	default:
		return invokeGrpc(ctx, overGrpc, todo)
	}
}

func messages(todo *command) (proto.Message, *pb.LookReply, error) {
	var in proto.Message = &pb.LookRequest{}
	if todo.Method == "Fail" {
		in = &pb.FailRequest{}
	}
	return in, &pb.LookReply{}, protojson.Unmarshal(todo.Request, in)
}

func replied(reply proto.Message, headers map[string][]string) (*answer, error) {
	text, err := protojson.Marshal(reply)
	one := map[string]string{}
	for name, values := range headers {
		one[strings.ToLower(name)] = strings.Join(values, ",")
	}
	return &answer{Reply: text, Headers: one}, err
}

func invokeGrpc(ctx context.Context, conn *grpc.ClientConn, todo *command) (*answer, error) {
	in, out, err := messages(todo)
	if err != nil {
		return &answer{}, err
	}
	var headers grpcmetadata.MD
	options := []grpc.CallOption{grpc.Header(&headers)}
	if todo.Gzip {
		options = append(options, grpc.UseCompressor(gzip.Name))
	}
	if todo.Codec != "" {
		options = append(options, grpc.CallContentSubtype(todo.Codec))
	}
	if err := conn.Invoke(ctx, operation(todo.Method), in, out, options...); err != nil {
		return &answer{}, err
	}
	return replied(out, headers)
}

func invokeHTTP(ctx context.Context, client *khttp.Client, todo *command) (*answer, error) {
	in, out, err := messages(todo)
	if err != nil {
		return &answer{}, err
	}
	rule := rules[todo.Method]
	var body any
	switch rule.body {
	case "*":
		body = in
	case "shelf":
		body = in.(*pb.LookRequest).Shelf
	}
	codec := "application/json"
	if todo.Codec != "" {
		codec = "application/" + todo.Codec
	}
	headers := http.Header{"Accept": {codec}}
	path := binding.EncodeURL(rule.path, in, rule.body != "*")
	options := []khttp.CallOption{
		khttp.Operation(operation(todo.Method)), khttp.PathTemplate(rule.path), khttp.ContentType(codec), khttp.Header(&headers),
	}
	if err := client.Invoke(ctx, rule.verb, path, body, out, options...); err != nil {
		return &answer{}, err
	}
	return replied(out, headers)
}

func stream(ctx context.Context, client pb.PeerClient, todo *command) (*answer, error) {
	found := &answer{}
	switch todo.Method {
	case "Count":
		numbers, err := client.Count(ctx, &pb.Number{Value: todo.Values[0]})
		if err != nil {
			return found, err
		}
		return found, collect(found, numbers.Recv)
	case "Sum":
		numbers, err := client.Sum(ctx)
		if err != nil {
			return found, err
		}
		for _, value := range todo.Values {
			if err := numbers.Send(&pb.Number{Value: value}); err != nil {
				return found, err
			}
		}
		sum, err := numbers.CloseAndRecv()
		found.Values = []int64{sum.GetValue()}
		return found, err
	default:
		numbers, err := client.Double(ctx)
		if err != nil {
			return found, err
		}
		for _, value := range todo.Values {
			if err := numbers.Send(&pb.Number{Value: value}); err != nil {
				return found, err
			}
			number, err := numbers.Recv()
			if err != nil {
				return found, err
			}
			found.Values = append(found.Values, number.Value)
		}
		if err := numbers.CloseSend(); err != nil {
			return found, err
		}
		return found, collect(found, numbers.Recv)
	}
}

func collect(found *answer, next func() (*pb.Number, error)) error {
	for {
		number, err := next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		found.Values = append(found.Values, number.Value)
	}
}

// events reads a stream of Server-Sent Events as anything that speaks HTTP does.
func events(ctx context.Context, client *khttp.Client, todo *command) (*answer, error) {
	found := &answer{}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("%s/v1/count/%d", todo.URL, todo.Values[0]), nil)
	if err != nil {
		return found, err
	}
	request.Header.Set("Accept", "text/event-stream")
	response, err := client.Do(request)
	if err != nil {
		return found, err
	}
	defer response.Body.Close()
	found.Headers = map[string]string{"content-type": response.Header.Get("Content-Type")}
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		found.Texts = append(found.Texts, lines.Text())
	}
	return found, lines.Err()
}

// healthOf asks once, or watches until the service no longer serves.
func healthOf(ctx context.Context, conn *grpc.ClientConn, todo *command) (*answer, error) {
	found, client := &answer{}, grpc_health_v1.NewHealthClient(conn)
	if todo.Method == "Check" {
		status, err := client.Check(ctx, &grpc_health_v1.HealthCheckRequest{})
		found.Texts = []string{status.GetStatus().String()}
		return found, err
	}
	statuses, err := client.Watch(ctx, &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		return found, err
	}
	for {
		status, err := statuses.Recv()
		if err != nil {
			return found, err
		}
		found.Texts = append(found.Texts, status.Status.String())
		if len(found.Texts) == 1 {
			os.Stdout.WriteString("{\"texts\":[\"SERVING\"]}\n") // whoever reads knows that the watch stands
		}
		if status.Status != grpc_health_v1.HealthCheckResponse_SERVING {
			return found, nil
		}
	}
}
