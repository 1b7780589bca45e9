/* A plugin for Mosquitto 2.x: who may subscribe to what. `acl_file` grants every SUBSCRIBE and filters at delivery, so a
 * client could fill the broker's memory with filters of its own; with this one it is refused all but a known few.
 *
 *     plugin /usr/local/lib/fedistill_guard.so
 *     plugin_opt_owner agg-1                                may subscribe to anything
 *     plugin_opt_filter fd/v1/lab/round                     as often as there are filters; %u is the client's name
 *
 * A filter must be asked for letter by letter: one of a device's own that covers less is refused too. Whatever is not
 * a SUBSCRIBE is left to `acl_file`.
 *
 * What is deliberately absent: allocation after the start, any state of a client.
 *
 *     cc -shared -fPIC -O2 -Wall -Wextra -o fedistill_guard.so guard.c        (apt install gcc mosquitto-dev libmosquitto-dev)
 */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <mosquitto.h>
#include <mosquitto_broker.h>
#include <mosquitto_plugin.h>

#define MOST 64

static mosquitto_plugin_id_t *self;
static char *owner, *filters[MOST];
static int count;

/* Whether `topic` is `filter` with every %u replaced by `name`. */
static bool is_filter(const char *filter, const char *name, const char *topic)
{
    size_t length = strlen(name);

    while (*filter) {
        if (filter[0] == '%' && filter[1] == 'u') {
            if (strncmp(topic, name, length) != 0) {
                return false;
            }
            filter += 2;
            topic += length;
        } else if (*filter++ != *topic++) {
            return false;
        }
    }
    return *topic == '\0';
}

static int on_access(int event, void *data, void *user_data)
{
    const struct mosquitto_evt_acl_check *asked = data;
    const char *name;

    (void)event;
    (void)user_data;
    if (asked->access != MOSQ_ACL_SUBSCRIBE) {
        return MOSQ_ERR_PLUGIN_DEFER;
    }
    name = mosquitto_client_username(asked->client);
    if (name == NULL) {
        return MOSQ_ERR_ACL_DENIED;
    }
    if (owner != NULL && strcmp(name, owner) == 0) {
        return MOSQ_ERR_PLUGIN_DEFER;
    }
    for (int i = 0; i < count; i++) {
        if (is_filter(filters[i], name, asked->topic)) {
            return MOSQ_ERR_PLUGIN_DEFER;
        }
    }
    return MOSQ_ERR_ACL_DENIED;
}

int mosquitto_plugin_version(int supported_version_count, const int *supported_versions)
{
    for (int i = 0; i < supported_version_count; i++) {
        if (supported_versions[i] == 5) {
            return 5;
        }
    }
    return -1;
}

int mosquitto_plugin_init(mosquitto_plugin_id_t *identifier, void **user_data, struct mosquitto_opt *options, int option_count)
{
    (void)user_data;
    self = identifier;
    for (int i = 0; i < option_count; i++) {
        char *value = strdup(options[i].value);

        if (value == NULL) {
            return MOSQ_ERR_NOMEM;
        }
        if (strcmp(options[i].key, "owner") == 0 && owner == NULL) {
            owner = value;
        } else if (strcmp(options[i].key, "filter") == 0 && count < MOST) {
            filters[count++] = value;
        } else {
            free(value);
            mosquitto_log_printf(MOSQ_LOG_ERR, "guard: an option that it does not know, or one too many: %s", options[i].key);
            return MOSQ_ERR_INVAL;
        }
    }
    return mosquitto_callback_register(self, MOSQ_EVT_ACL_CHECK, on_access, NULL, NULL);
}

int mosquitto_plugin_cleanup(void *user_data, struct mosquitto_opt *options, int option_count)
{
    (void)user_data;
    (void)options;
    (void)option_count;
    while (count > 0) {
        free(filters[--count]);
    }
    free(owner);
    owner = NULL;
    return mosquitto_callback_unregister(self, MOSQ_EVT_ACL_CHECK, on_access, NULL);
}
