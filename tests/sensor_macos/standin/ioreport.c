/* A stand-in for the part of IOReport that is used: its channels say what a test, or a file, tells them to. */
#include "standin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define CHANNELS 1024

static struct channel {
    char name[512];
    char unit[32];
    int encoding;
    int64_t value;
    double counts_per_second;
} channels[CHANNELS];
static long channel_count, name_reads;
static double started_at;
static volatile int is_hanging;

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + time.tv_nsec / 1e9;
}

void standin_clear(void) { channel_count = name_reads = is_hanging = 0; }
void standin_hang(int is_on) { is_hanging = is_on; }
long standin_name_reads(void) { return name_reads; }

void standin_channel(const char *name, const char *unit, int64_t value, double counts_per_second, int encoding) {
    struct channel *channel = &channels[channel_count++];
    snprintf(channel->name, sizeof channel->name, "%s", name);
    snprintf(channel->unit, sizeof channel->unit, "%s", unit);
    channel->value = value;
    channel->counts_per_second = counts_per_second;
    channel->encoding = encoding;
}

void standin_add(const char *name, int64_t counts) {
    for (long index = 0; index < channel_count; index++)
        if (strcmp(channels[index].name, name) == 0)
            channels[index].value += counts;
}

/* Lines of: name, tab, unit, tab, value, tab, counts per second. */
static void read_script(void) {
    const char *path = getenv("STANDIN_CHANNELS");
    FILE *file = path == NULL || channel_count > 0 ? NULL : fopen(path, "r");
    if (file == NULL)
        return;
    char name[512], unit[32];
    long long value;
    double rate;
    started_at = now();
    while (fscanf(file, " %511[^\t]\t%31[^\t]\t%lld\t%lf", name, unit, &value, &rate) == 4)
        standin_channel(name, unit, value, rate, 0);
    fclose(file);
}

static struct object *array_of_channels(void) {
    struct object *array = make(ARRAY);
    if (fault("null item"))
        append(array, NULL);
    for (long index = 0; index < channel_count; index++) {
        struct channel *channel = &channels[index];
        struct object *item = make(DICTIONARY), *number = make(SUBSCRIPTION);
        double counts = channel->counts_per_second > 0 ? channel->counts_per_second * (now() - started_at) : 0;
        number->count = 0;
        number->text = malloc(32);
        snprintf(number->text, 32, "%lld", (long long)channel->value + (long long)counts);
        append(item, make_string("name", 0));
        append(item, fault("name is no string") ? make(ARRAY) : make_string(channel->name, channel->encoding));
        append(item, make_string("unit", 0));
        append(item, make_string(channel->unit, channel->encoding));
        append(item, make_string("value", 0));
        append(item, number);
        append(array, item);
    }
    return array;
}

static struct object *dictionary_of_channels(void) {
    struct object *dictionary = make(DICTIONARY);
    if (fault("no channels"))
        return dictionary;
    append(dictionary, make_string("IOReportChannels", 0));
    append(dictionary, fault("channels are no array") ? make_string("?", 0) : array_of_channels());
    return dictionary;
}

struct object *IOReportCopyChannelsInGroup(struct object *group, struct object *subgroup, uint64_t a, uint64_t b, uint64_t c) {
    (void)subgroup, (void)a, (void)b, (void)c;
    alive(group, "IOReportCopyChannelsInGroup");
    read_script();
    if (fault("no group") || strcmp(group->text, "Energy Model") != 0)
        return NULL;
    return fault("group is no dictionary") ? make_string("?", 0) : dictionary_of_channels();
}

struct object *IOReportCreateSubscription(void *a, struct object *wanted, struct object **subscribed, uint64_t b, void *c) {
    (void)a, (void)b, (void)c;
    alive(wanted, "IOReportCreateSubscription");
    if (fault("denied"))
        return NULL;
    if (!fault("nothing subscribed"))
        *subscribed = dictionary_of_channels();
    return fault("denied late") ? NULL : make(SUBSCRIPTION);
}

struct object *IOReportCreateSamples(struct object *subscription, struct object *wanted, void *a) {
    (void)a;
    alive(subscription, "IOReportCreateSamples");
    alive(wanted, "IOReportCreateSamples");
    while (is_hanging)
        usleep(1000);
    if (fault("no sample"))
        return NULL;
    return fault("sample is no dictionary") ? make_string("?", 0) : dictionary_of_channels();
}

struct object *IOReportChannelGetChannelName(struct object *channel) {
    alive(channel, "IOReportChannelGetChannelName");
    name_reads++;
    return fault("no name") ? NULL : look_up(channel, "name");
}

#ifndef WITHOUT_UNITS
struct object *IOReportChannelGetUnitLabel(struct object *channel) {
    alive(channel, "IOReportChannelGetUnitLabel");
    return fault("no unit") ? NULL : look_up(channel, "unit");
}
#endif

int64_t IOReportSimpleGetIntegerValue(struct object *channel, int a) {
    (void)a;
    alive(channel, "IOReportSimpleGetIntegerValue");
    return atoll(look_up(channel, "value")->text);
}
