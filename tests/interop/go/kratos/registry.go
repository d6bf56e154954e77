package main

import (
	"context"
	"encoding/json"
	"time"

	"github.com/go-kratos/kratos/v2/registry"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	namespace = "/microservices"
	ttl       = 15
)

// etcd announces and finds instances. The values are what kratos' own type becomes in JSON.
type etcd struct{ client *clientv3.Client }

func dial(endpoints []string) (*etcd, error) {
	client, err := clientv3.New(clientv3.Config{Endpoints: endpoints, DialTimeout: 5 * time.Second})
	if err != nil {
		return nil, err
	}
	return &etcd{client}, nil
}

func key(instance *registry.ServiceInstance) string {
	return namespace + "/" + instance.Name + "/" + instance.ID
}

func (e *etcd) Register(ctx context.Context, instance *registry.ServiceInstance) error {
	value, err := json.Marshal(instance)
	if err != nil {
		return err
	}
	lease, err := e.client.Grant(ctx, ttl)
	if err != nil {
		return err
	}
	if _, err = e.client.Put(ctx, key(instance), string(value), clientv3.WithLease(lease.ID)); err != nil {
		return err
	}
	alive, err := e.client.KeepAlive(context.Background(), lease.ID)
	if err != nil {
		return err
	}
	go func() {
		for range alive {
		}
	}()
	return nil
}

func (e *etcd) Deregister(ctx context.Context, instance *registry.ServiceInstance) error {
	_, err := e.client.Delete(ctx, key(instance))
	return err
}

func (e *etcd) GetService(ctx context.Context, name string) ([]*registry.ServiceInstance, error) {
	answer, err := e.client.Get(ctx, namespace+"/"+name+"/", clientv3.WithPrefix())
	if err != nil {
		return nil, err
	}
	instances := make([]*registry.ServiceInstance, 0, len(answer.Kvs))
	for _, pair := range answer.Kvs {
		var instance registry.ServiceInstance
		if err := json.Unmarshal(pair.Value, &instance); err != nil {
			return nil, err
		}
		instances = append(instances, &instance)
	}
	return instances, nil
}

func (e *etcd) Watch(ctx context.Context, name string) (registry.Watcher, error) {
	ctx, cancel := context.WithCancel(ctx)
	changes := e.client.Watch(ctx, namespace+"/"+name+"/", clientv3.WithPrefix())
	return &watcher{etcd: e, name: name, changes: changes, ctx: ctx, cancel: cancel}, nil
}

type watcher struct {
	*etcd
	name    string
	changes clientv3.WatchChan
	ctx     context.Context
	cancel  context.CancelFunc
	begun   bool
}

func (w *watcher) Next() ([]*registry.ServiceInstance, error) {
	if w.begun {
		select {
		case <-w.ctx.Done():
			return nil, w.ctx.Err()
		case <-w.changes:
		}
	}
	w.begun = true
	return w.GetService(w.ctx, w.name)
}

func (w *watcher) Stop() error {
	w.cancel()
	return nil
}
