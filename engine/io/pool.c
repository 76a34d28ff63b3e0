/*
 * pool.c: helper threads for what blocks or burns: one pool for tb_io_offload, one for the posix backend's file calls,
 * so that a password hash never stands before a log write, and one thread for tb_io_offload_idle. All are shared by all
 * ios of the process.
 *
 * Threads start when there is work and no idle thread, up to a bound, and end with the last io. They take no signals.
 * Queues hold only ops that callers own, so they are bounded by the callers. Must never: run done.
 * Thread: any; each pool has its mutex.
 */
#include "backend.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#define POOL_THREADS_MAX 4

struct pool {
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    struct tb_list queue;
    pthread_t thread[POOL_THREADS_MAX];
    unsigned threads, idle, queued;
    bool stopping;
};

#define POOL_INIT \
    { \
        .mutex = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER \
    }
static struct pool pools[TB_POOLS] = {POOL_INIT, POOL_INIT, POOL_INIT};

static pthread_mutex_t holders_mutex = PTHREAD_MUTEX_INITIALIZER;
static unsigned holders;

static void *pool_main(void *arg)
{
    struct pool *p = arg;
    const struct sched_param none = {0};
    if (p == &pools[TB_POOL_IDLE])
        (void)pthread_setschedparam(pthread_self(), SCHED_IDLE, &none); /* if refused: it disturbs more, and works */
    pthread_mutex_lock(&p->mutex);
    while (!p->stopping || p->queue.head) {
        struct tb_op *op = tb_list_pop(&p->queue);
        if (!op) {
            p->idle++;
            pthread_cond_wait(&p->wake, &p->mutex);
            p->idle--;
            continue;
        }
        p->queued--;
        pthread_mutex_unlock(&p->mutex);
        op->work(op);
        tb_inbox_push(NULL, op->io, op, tb_event_ring);
        pthread_mutex_lock(&p->mutex);
    }
    pthread_mutex_unlock(&p->mutex);
    return NULL;
}

/* One more thread, without signals of its own. The mutex is held. */
static void pool_grow(struct pool *p)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    if (pthread_create(&p->thread[p->threads], NULL, pool_main, p) == 0)
        p->threads++;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
}

static unsigned pool_limit(void)
{
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    return cpus < 2 ? 2 : cpus > POOL_THREADS_MAX ? POOL_THREADS_MAX : (unsigned)cpus;
}

bool tb_pool_submit(enum tb_pool_id id, struct tb_op *op)
{
    struct pool *p = &pools[id];
    unsigned limit = id == TB_POOL_FILES ? POOL_THREADS_MAX : id == TB_POOL_IDLE ? 1 : pool_limit();
    pthread_mutex_lock(&p->mutex);
    if (p->idle <= p->queued && p->threads < limit)
        pool_grow(p);
    bool ok = p->threads > 0;
    if (ok) {
        tb_list_push(&p->queue, op);
        p->queued++;
        pthread_cond_signal(&p->wake);
    }
    pthread_mutex_unlock(&p->mutex);
    return ok;
}

bool tb_pool_remove(enum tb_pool_id id, struct tb_op *op)
{
    struct pool *p = &pools[id];
    pthread_mutex_lock(&p->mutex);
    bool found = tb_list_remove(&p->queue, op);
    p->queued -= found;
    pthread_mutex_unlock(&p->mutex);
    return found;
}

void tb_pools_hold(void)
{
    pthread_mutex_lock(&holders_mutex);
    holders++;
    pthread_mutex_unlock(&holders_mutex);
}

/* Let the threads finish what is queued, and join them. */
static void pool_stop(struct pool *p)
{
    pthread_mutex_lock(&p->mutex);
    p->stopping = true;
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->mutex);
    for (unsigned i = 0; i < p->threads; i++)
        pthread_join(p->thread[i], NULL);
    p->threads = 0;
    p->stopping = false;
}

void tb_pools_drop(void)
{
    pthread_mutex_lock(&holders_mutex);
    TB_ASSERT(holders > 0);
    if (--holders == 0) {
        for (unsigned i = 0; i < TB_POOLS; i++)
            pool_stop(&pools[i]);
    }
    pthread_mutex_unlock(&holders_mutex);
}
