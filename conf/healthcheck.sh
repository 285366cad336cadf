#!/bin/sh
# The health check of the container image, the second watcher beside the agent: once an hour it
# renews what is due, which brings back an agent that is gone, and says in `docker logs` what is not
# well. Its arguments are nginx's, for who starts nginx with others than the image does:
#
#   docker run --health-cmd 'nginx-acme-healthcheck -c /etc/site/nginx.conf' …
#
# It never fails. Whoever acts on an unhealthy container stops it, and gives it no traffic while it
# isn't healthy; neither brings a certificate, and both take a site away that is served with the
# old one. If nginx ends, so does the container. For alarms, let your monitoring call
#
#   docker exec NAME nginx-acme status --check

# Where nginx's pid file is, too: nobody else may write there, or everybody here is one user.
looked=/run/nginx-acme.looked
[ "$(id -u)" = 0 ] || looked=/tmp/nginx-acme.looked

[ -e "$NGINX_ACME_STATE_PATH/instances" ] || exit 0 # there is no `acme` in the configuration
[ -e "$looked" ] || touch "$looked"
# Where it can't be made, every check looks: one too many rather than none.
[ ! -e "$looked" ] || [ -n "$(find "$looked" -mmin +60)" ] || exit 0
touch "$looked"

# The container's log; another user's, or a socket, can't be opened, and is no reason not to renew.
(: >>/proc/1/fd/2) 2>/dev/null && exec >>/proc/1/fd/2
exec 2>&1
nginx-acme renew "$@"
said=$(nginx-acme status --check "$@") || echo "$said"
exit 0
