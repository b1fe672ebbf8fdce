/* A stand-in for libnvidia-ml.so.1 that does as a test tells it, through a file in memory (NVML_STUB_CONTROL).
 *
 * Like the real one it counts initialisations, knows only the cards that were there at the first of them, and refuses
 * handles of an earlier life. The structures are those of stub.py; a change to one is a change to both.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define CARDS 4

enum { SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, DRIVER_NOT_LOADED = 9, LIBRARY_NOT_FOUND = 12, GPU_IS_LOST = 15 };

struct card {
    uint32_t present;       /* in the machine */
    uint32_t generation;    /* a card that was away has another one */
    int32_t handle_fault;   /* what nvmlDeviceGetHandleByIndex returns */
    int32_t fault;          /* what every call with a handle returns */
    int32_t energy_fault;
    int32_t power_fault;
    int32_t limit_fault;    /* of nvmlDeviceGetPowerManagementLimitConstraints */
    int32_t uuid_fault;
    int32_t name_fault;
    int32_t pci_fault;
    uint32_t hang;          /* calls with its handle do not return while it is set */
    uint32_t hung;          /* how many hang */
    uint32_t power_mw;
    uint32_t limit_mw;
    uint32_t calls;         /* how often energy or power were asked */
    uint64_t energy_mj;     /* the counter when it was set */
    int64_t since_ns;       /* and since when it goes on by power_mw; 0: it stands still */
    uint64_t first_mj;      /* what the counter said first, in an answer */
    uint64_t last_mj;       /* and last */
    char uuid[96];
    char name[96];
    char bus_id[32];
};

struct control {
    int32_t init_fault;
    uint32_t init_hang;
    uint32_t count_hang;    /* nvmlDeviceGetCount does not return while it is set */
    uint32_t shutdown_hang;
    uint32_t lives_on;      /* the numbering follows what is present, without another initialisation */
    uint32_t forgets;       /* counters begin at 0 when the last user has left */
    uint32_t inits;
    uint32_t shutdowns;
    uint32_t references;
    uint32_t lives;         /* how often the first reference was taken */
    uint32_t in_flight;
    uint32_t waiting;       /* threads that hang, in whatever call */
    uint32_t stale_handles; /* calls with a handle of an earlier life */
    uint32_t shut_below;    /* shut down while calls were in flight */
    uint32_t without_init;  /* calls outside of any life */
    uint32_t count;
    uint32_t numbers[CARDS];
    uint32_t generations[CARDS];
    struct card cards[CARDS];
};

typedef struct { char bus_id_legacy[16]; unsigned domain, bus, device, device_id, subsystem_id; char bus_id[32]; } pci_info;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static struct control *control(void)
{
    static char mapped_path[4096];
    static struct control *mapped;
    const char *path = getenv("NVML_STUB_CONTROL");
    if (!path)
        return NULL;
    pthread_mutex_lock(&lock);
    if (strcmp(path, mapped_path)) {
        int file = open(path, O_RDWR);
        void *where = file < 0 ? MAP_FAILED : mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        if (file >= 0)
            close(file);
        mapped = where == MAP_FAILED ? NULL : where;
        snprintf(mapped_path, sizeof mapped_path, "%s", path);
    }
    pthread_mutex_unlock(&lock);
    return mapped;
}

static void sleep_a_little(void)
{
    struct timespec while_ = {0, 1000000};
    nanosleep(&while_, NULL);
}

/* Do not return while it is set. */
static void wait_while(struct control *all, uint32_t *hang)
{
    if (!*(volatile uint32_t *)hang)
        return;
    __atomic_add_fetch(&all->waiting, 1, __ATOMIC_SEQ_CST);
    while (*(volatile uint32_t *)hang)
        sleep_a_little();
    __atomic_sub_fetch(&all->waiting, 1, __ATOMIC_SEQ_CST);
}

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static uint64_t energy_of(struct card *card)
{
    if (!card->since_ns)
        return card->energy_mj;
    return card->energy_mj + (uint64_t)((double)(now_ns() - card->since_ns) / 1e9 * card->power_mw);
}

static void number(struct control *all)
{
    all->count = 0;
    for (uint32_t number = 0; number < CARDS; number++)
        if (all->cards[number].present) {
            all->numbers[all->count] = number;
            all->generations[all->count++] = all->cards[number].generation;
        }
}

int nvmlInitWithFlags(unsigned flags)
{
    struct control *all = control();
    (void)flags;
    if (!all)
        return LIBRARY_NOT_FOUND;
    wait_while(all, &all->init_hang);
    if (all->init_fault)
        return all->init_fault;
    pthread_mutex_lock(&lock);
    all->inits++;
    if (!all->references++) {
        all->lives++;
        number(all);
    }
    pthread_mutex_unlock(&lock);
    return SUCCESS;
}

int nvmlShutdown(void)
{
    struct control *all = control();
    if (!all)
        return UNINITIALIZED;
    wait_while(all, &all->shutdown_hang);
    pthread_mutex_lock(&lock);
    all->shutdowns++;
    if (all->references && !--all->references) {
        all->shut_below += all->in_flight;
        for (int number = 0; all->forgets && number < CARDS; number++) {
            all->cards[number].energy_mj = 0;
            if (all->cards[number].since_ns)
                all->cards[number].since_ns = now_ns();
        }
    }
    pthread_mutex_unlock(&lock);
    return SUCCESS;
}

const char *nvmlErrorString(int code)
{
    return code == GPU_IS_LOST ? "GPU is lost" : "as the stub was told";
}

int nvmlDeviceGetCount_v2(unsigned *count)
{
    struct control *all = control();
    if (!all || !all->references) {
        if (all)
            all->without_init++;
        return UNINITIALIZED;
    }
    wait_while(all, &all->count_hang);
    pthread_mutex_lock(&lock);
    if (all->lives_on)
        number(all);
    *count = all->count;
    pthread_mutex_unlock(&lock);
    return SUCCESS;
}

/* A handle tells the life that it is of, and the index. */
static void *handle_of(struct control *all, unsigned index)
{
    return (void *)(uintptr_t)((all->lives + 1) * 0x1000 + (index + 1) * 0x10);
}

/* Begin a call about a card: wait where it hangs, fail where it is told to. Every one that is begun is ended. */
static int begin(struct control **where, void *handle, struct card **card)
{
    struct control *all = *where = control();
    if (!all || !all->references) {
        if (all)
            all->without_init++;
        return UNINITIALIZED;
    }
    uintptr_t value = (uintptr_t)handle;
    unsigned index = (value % 0x1000) / 0x10 - 1;
    pthread_mutex_lock(&lock);
    int is_stale = value / 0x1000 != all->lives + 1, is_valid = !is_stale && index < all->count;
    all->stale_handles += is_stale;
    *card = &all->cards[is_valid ? all->numbers[index] : 0];
    uint32_t generation = is_valid ? all->generations[index] : 0;
    pthread_mutex_unlock(&lock);
    if (!is_valid)
        return INVALID_ARGUMENT;
    __atomic_add_fetch(&all->in_flight, 1, __ATOMIC_SEQ_CST);
    if (*(volatile uint32_t *)&(*card)->hang) {
        __atomic_add_fetch(&(*card)->hung, 1, __ATOMIC_SEQ_CST);
        wait_while(all, &(*card)->hang);
        __atomic_sub_fetch(&(*card)->hung, 1, __ATOMIC_SEQ_CST);
    }
    __atomic_sub_fetch(&all->in_flight, 1, __ATOMIC_SEQ_CST);
    if (!(*card)->present || (*card)->generation != generation)
        return GPU_IS_LOST;
    return (*card)->fault;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle)
{
    struct control *all = control();
    struct card *card;
    if (!all || !all->references)
        return UNINITIALIZED;
    if (index >= all->count)
        return INVALID_ARGUMENT;
    int code = begin(&all, handle_of(all, index), &card);
    if (!code)
        code = card->handle_fault;
    if (!code)
        *handle = handle_of(all, index);
    return code;
}

static int text(void *handle, char *to, unsigned size, size_t offset, size_t fault)
{
    struct control *all;
    struct card *card;
    int code = begin(&all, handle, &card);
    if (!code)
        code = *(int32_t *)((char *)card + fault);
    if (!code)
        snprintf(to, size, "%s", (char *)card + offset);
    return code;
}

#define TEXT(name) offsetof(struct card, name), offsetof(struct card, name##_fault)

int nvmlDeviceGetUUID(void *handle, char *to, unsigned size) { return text(handle, to, size, TEXT(uuid)); }
int nvmlDeviceGetName(void *handle, char *to, unsigned size) { return text(handle, to, size, TEXT(name)); }

int nvmlDeviceGetPciInfo_v3(void *handle, pci_info *info)
{
    memset(info, 0, sizeof *info);
    return text(handle, info->bus_id, sizeof info->bus_id, offsetof(struct card, bus_id), offsetof(struct card, pci_fault));
}

int nvmlDeviceGetPowerManagementLimitConstraints(void *handle, unsigned *lowest, unsigned *highest)
{
    struct control *all;
    struct card *card;
    int code = begin(&all, handle, &card);
    if (!code)
        code = card->limit_fault;
    if (!code) {
        *lowest = card->limit_mw / 2;
        *highest = card->limit_mw;
    }
    return code;
}

int nvmlDeviceGetEnforcedPowerLimit(void *handle, unsigned *limit)
{
    struct control *all;
    struct card *card;
    int code = begin(&all, handle, &card);
    if (!code)
        *limit = card->limit_mw;
    return code;
}

int nvmlDeviceGetPowerUsage(void *handle, unsigned *milliwatts)
{
    struct control *all;
    struct card *card;
    int code = begin(&all, handle, &card);
    if (!code)
        code = card->power_fault;
    if (!code) {
        card->calls++;
        *milliwatts = card->power_mw;
    }
    return code;
}

int nvmlDeviceGetTotalEnergyConsumption(void *handle, unsigned long long *millijoules)
{
    struct control *all;
    struct card *card;
    int code = begin(&all, handle, &card);
    if (!code)
        code = card->energy_fault;
    if (!code) {
        pthread_mutex_lock(&lock);
        card->last_mj = *millijoules = energy_of(card);
        if (!card->calls++)
            card->first_mj = card->last_mj;
        pthread_mutex_unlock(&lock);
    }
    return code;
}
