# Everything a user or a developer does with this checkout. `make` leaves programs in bin/ that run from here.
SHELL := /bin/sh
PREFIX ?= /usr/local
DESTDIR ?=
export PATH := $(CURDIR)/node_modules/.bin:$(PATH)
NODE := node

.PHONY: all deps build check test demo bench release install clean docs

all: deps
	tsc -p .
	$(NODE) tools/bundle.ts

# npm runs on whatever Node the machine has; the Node that runs our code comes with the packages. Not `npm ci`: it refuses
# the lock file where a mirror lacks the prebuilt package of some other platform; `install` takes what the lock file pins.
node_modules/.package-lock.json: package.json package-lock.json
	@command -v npm >/dev/null || { echo "make: npm is missing: install Node.js with npm (Debian: apt-get install npm)" >&2; exit 1; }
	npm install --no-save --no-audit --no-fund --loglevel=error
	@touch $@

deps: node_modules/.package-lock.json

build: deps
	$(NODE) tools/bundle.ts

check: deps
	tsc -p .
	oxlint --type-aware src test bench tools
	prettier --check --log-level warn src test bench tools
	$(NODE) --test test/layering.test.ts
	$(NODE) tools/cli-docs.ts --check
	$(NODE) tools/format-docs.ts --check
	$(NODE) tools/limits-docs.ts --check
	$(NODE) tools/openapi.ts --check
	$(NODE) tools/grafana.ts --check

docs: deps
	$(NODE) tools/cli-docs.ts
	$(NODE) tools/format-docs.ts
	$(NODE) tools/limits-docs.ts
	$(NODE) tools/openapi.ts
	$(NODE) tools/grafana.ts

test: build
	$(NODE) tools/test.ts

demo: build
	$(NODE) tools/demo.ts

bench: build
	$(NODE) bench/run.ts $(if $(PEER),--peer $(PEER))

release: build
	$(NODE) tools/release.ts

install: build
	$(NODE) tools/release.ts --install "$(DESTDIR)$(PREFIX)"

clean:
	rm -rf bin dist build bin.new-*
