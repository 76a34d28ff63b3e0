#!/bin/sh
# `make run`: a store in ./run with one account, served in the foreground. The first run makes both.
set -eu
B=${B:-build/release}
dir=run
conf=$dir/tambo.conf

if [ ! -e "$conf" ]; then
    "$B/tambo" init "$dir" --hostname localhost --port-offset "${DEMO_PORT_OFFSET:-10000}" >/dev/null
fi
if [ ! -e "$dir/demo.password" ]; then
    (umask 077 && od -An -N9 -tx1 /dev/urandom | tr -d ' \n' >"$dir/demo.password.new")
    "$B/tambo" -c "$conf" account add demo --password-stdin <"$dir/demo.password.new" >/dev/null
    mv "$dir/demo.password.new" "$dir/demo.password"
fi

port() { # port PROTOCOL TLS: of the first such listener
    "$B/tambo" -c "$conf" config dump --json |
        sed -n "s/.*\"value\":\"$1 127\\.0\\.0\\.1 port \\([0-9]*\\) tls $2\".*/\\1/p" | head -n 1
}
imap=$(port imap starttls) smtp=$(port smtp starttls) password=$(cat "$dir/demo.password")
cat <<TEXT

Tambo on 127.0.0.1, store and configuration in ./$dir

  account    demo
  password   $password     (kept in $dir/demo.password)

  IMAP  $imap, TLS $(port imap tls)      POP3  $(port pop3 starttls), TLS $(port pop3 tls)
  SMTP  $smtp, submission $(port submission starttls), TLS $(port submission tls)      LMTP  $(port lmtp none)

Try it from another terminal:

  printf 'Subject: hello\\r\\n\\r\\nThe first message.\\r\\n' |
      curl -s smtp://127.0.0.1:$smtp --mail-from me@example.org --mail-rcpt demo@localhost -T -
  curl -s --user demo:$password 'imap://127.0.0.1:$imap/INBOX;UID=1'
  $B/tambo -c $conf mailbox list demo
  $B/tambo -c $conf stat

Ctrl-C ends it.

TEXT
exec "$B/tambod" -c "$conf"
