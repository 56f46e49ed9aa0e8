// An elector of client-go, with the timings of Spegel, told by flags and telling what happens as JSON lines on stdout.
//
//	{"event":"new_leader","holder":"..."}  {"event":"leading"}  {"event":"stopped"}
//
// SIGTERM releases and ends it.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"os"
	"os/signal"
	"syscall"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

type event struct {
	Event  string `json:"event"`
	Holder string `json:"holder,omitempty"`
}

func main() {
	kubeconfig := flag.String("kubeconfig", "", "")
	namespace := flag.String("namespace", "", "")
	name := flag.String("name", "", "")
	identity := flag.String("identity", "", "")
	flag.Parse()

	out := json.NewEncoder(os.Stdout)
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		panic(err)
	}
	lock := &resourcelock.LeaseLock{
		LeaseMeta:  metav1.ObjectMeta{Name: *name, Namespace: *namespace},
		Client:     kubernetes.NewForConfigOrDie(config).CoordinationV1(),
		LockConfig: resourcelock.ResourceLockConfig{Identity: *identity},
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	leaderelection.RunOrDie(ctx, leaderelection.LeaderElectionConfig{
		Lock:            lock,
		LeaseDuration:   10 * time.Second,
		RenewDeadline:   5 * time.Second,
		RetryPeriod:     2 * time.Second,
		ReleaseOnCancel: true,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(context.Context) { _ = out.Encode(event{Event: "leading"}) },
			OnStoppedLeading: func() { _ = out.Encode(event{Event: "stopped"}) },
			OnNewLeader:      func(holder string) { _ = out.Encode(event{Event: "new_leader", Holder: holder}) },
		},
	})
}
