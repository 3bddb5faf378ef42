// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package redislookup

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// Server says where Redis is and how to get in. It is a part of each source, which
// has one client of it for each worker process.
type Server struct {
	// Address is host:port, or a URL: redis://host:port/db, or rediss:// for
	// TLS. Several nodes of a cluster, or several sentinels, are separated by
	// commas. There can be no user and no password in it, for it travels in
	// the pipeline's description.
	Address string
	// Cluster says that Address is of nodes of a cluster: it has to name one
	// that is up, and the client finds the others.
	Cluster bool
	// Master is a master's name: Address is then that of its sentinels.
	Master string
	// Replicas reads from replicas too, in a cluster, or alone, with Master:
	// what they answer may be old.
	Replicas bool
	DB       int // number of the database; a cluster has but 0

	// TLS encrypts the connections; CAFile implies it.
	TLS      bool
	CAFile   string `json:",omitempty"` // PEM file of the workers, in place of their system's certificate authorities
	CertFile string `json:",omitempty"` // PEM file of the workers, with the client's certificate, if the server wants one
	KeyFile  string `json:",omitempty"` // and its private key

	Credentials         Credentials
	SentinelCredentials Credentials // the sentinels' own, if they want any

	// Connections is the most to a server, or to each of a cluster's. A call
	// needs one. Default: 64, as many as batchasync has calls in flight at most.
	Connections int

	client redis.UniversalClient
}

// defaultConnections are batchasync's most calls in flight, by default.
const defaultConnections = 64

// addresses takes Address apart.
func (s *Server) addresses() (addresses []string, db int, encrypted bool, err error) {
	db = s.DB
	for _, address := range strings.Split(s.Address, ",") {
		address = strings.TrimSpace(address)
		switch {
		case address == "":
			return nil, 0, false, errors.New("the Address is empty, or a part of it: make it host:port")
		case strings.Contains(address, "@"):
			// It isn't quoted, for this error is shown.
			return nil, 0, false, errors.New("the Address has a user or a password in it, and would travel in the pipeline's description, which runners store and show: " +
				"put them into environment variables of the workers, files, or a function; see Credentials")
		case strings.Contains(address, "?"):
			return nil, 0, false, errors.New("the Address has parameters, which would be ignored: set the fields of Server")
		case strings.Contains(address, "://"):
			options, err := redis.ParseURL(address)
			if err != nil || options.Network != "tcp" {
				return nil, 0, false, fmt.Errorf("the Address %q: must be host:port, redis://host:port/db or rediss://host:port/db", address)
			}
			if options.DB != 0 {
				if db != 0 && db != options.DB {
					return nil, 0, false, fmt.Errorf("the Address %q: names another database than %d", address, db)
				}
				db = options.DB
			}
			addresses = append(addresses, options.Addr)
			encrypted = encrypted || options.TLSConfig != nil
		default:
			if _, port, err := net.SplitHostPort(address); err != nil {
				return nil, 0, false, fmt.Errorf("the Address %q: must be host:port, such as %q", address, address+":6379")
			} else if _, err := strconv.ParseUint(port, 10, 16); err != nil {
				return nil, 0, false, fmt.Errorf("the Address %q: the port must be a number up to 65535", address)
			}
			addresses = append(addresses, address)
		}
	}
	return addresses, db, encrypted, nil
}

// Validate says what is wrong with the fields. A transform asks it at its
// construction.
func (s *Server) Validate() error {
	addresses, db, _, err := s.addresses()
	switch {
	case err != nil:
		return err
	case s.Cluster && s.Master != "":
		return errors.New("the fields Cluster and Master exclude each other: sentinels watch servers that are no cluster")
	case !s.Cluster && s.Master == "" && len(addresses) > 1:
		return fmt.Errorf("the Address has %d parts: set Cluster or Master, or name one server", len(addresses))
	case s.Cluster && db != 0:
		return fmt.Errorf("the DB is %d: a cluster has no database but 0", db)
	case db < 0:
		return fmt.Errorf("the DB is %d: must not be negative", db)
	case s.Replicas && !s.Cluster && s.Master == "":
		return errors.New("the field Replicas is set: that is for Cluster and Master; otherwise Address may be that of a replica")
	case s.Connections < 0:
		return fmt.Errorf("the Connections are %d: must be at least 1, or 0 for %d", s.Connections, defaultConnections)
	case (s.CertFile == "") != (s.KeyFile == ""):
		return errors.New("the CertFile and the KeyFile belong together: set both, or none")
	case s.Master == "" && s.SentinelCredentials != (Credentials{}):
		return errors.New("the SentinelCredentials are set, but Master is not: leave them out, or name it")
	}
	if err := s.Credentials.validate("Credentials"); err != nil {
		return err
	}
	return s.SentinelCredentials.validate("SentinelCredentials")
}

// Setup makes the client. It connects with the first calls, which are tried again
// if the server is not there.
func (s *Server) Setup(ctx context.Context) error {
	options, err := s.options(ctx)
	if err != nil {
		return fmt.Errorf("redislookup: %w", err)
	}
	s.client = redis.NewUniversalClient(options)
	return nil
}

// Teardown closes the client.
func (s *Server) Teardown(context.Context) error {
	return s.client.Close()
}

// Idempotent says that a call may be made twice: it only reads.
func (s *Server) Idempotent() bool { return true }

func (s *Server) options(ctx context.Context) (*redis.UniversalOptions, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	addresses, db, encrypted, err := s.addresses()
	if err != nil {
		return nil, err
	}
	options := &redis.UniversalOptions{
		Addrs: addresses, DB: db, MasterName: s.Master, IsClusterMode: s.Cluster, ReadOnly: s.Replicas,
		// Retry, backoff and timeout are batchasync's: it sees each failure.
		MaxRetries: -1, DialerRetries: 1, ContextTimeoutEnabled: true,
		// A call ends with its own context. This is for what the client asks
		// by itself: the nodes of a cluster, the address of a master.
		ReadTimeout: time.Minute,
		PoolSize:    s.Connections, PipelinePoolSize: -1, // one pool, for pipelines too
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
	if options.PoolSize == 0 {
		options.PoolSize = defaultConnections
	}
	if s.Credentials != (Credentials{}) {
		// For each connection, since a password may be changed.
		options.CredentialsProviderContext = s.Credentials.read
		if _, _, err := s.Credentials.read(ctx); err != nil {
			return nil, err
		}
	}
	if options.SentinelUsername, options.SentinelPassword, err = s.SentinelCredentials.read(ctx); err != nil {
		return nil, err
	}
	if s.TLS || encrypted || s.CAFile != "" || s.CertFile != "" {
		options.TLSConfig, err = s.tls()
	}
	return options, err
}

func (s *Server) tls() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if s.CAFile != "" {
		pem, err := os.ReadFile(s.CAFile)
		if err != nil {
			return nil, fmt.Errorf("the CAFile: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("the CAFile %s: there is no certificate in it, in PEM", s.CAFile)
		}
	}
	if s.CertFile != "" {
		certificate, err := tls.LoadX509KeyPair(s.CertFile, s.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("the CertFile and the KeyFile: %w", err)
		}
		config.Certificates = []tls.Certificate{certificate}
	}
	return config, nil
}
